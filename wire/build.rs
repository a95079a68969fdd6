//! Generates the messages and services of `proto/`.

const SPOOL: &str = "proto/spool.proto";
const KEDA: &str = "proto/externalscaler.proto";

fn main() -> std::io::Result<()> {
    for file in [SPOOL, KEDA] {
        println!("cargo:rerun-if-changed={file}");
    }
    // Without the clients' own `connect`, which has the name of a method of `ExecutorService`; `channel`
    // connects.
    tonic_prost_build::configure().build_transport(false).compile_protos(&[SPOOL], &["proto"])?;
    tonic_prost_build::configure().compile_protos(&[KEDA], &["proto"])
}
