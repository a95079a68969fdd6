//! Generates the messages and services of `proto/`.

fn main() -> std::io::Result<()> {
    for file in ["proto/spool.proto", "proto/externalscaler.proto"] {
        println!("cargo:rerun-if-changed={file}");
    }
    tonic_prost_build::configure()
        .compile_protos(&["proto/spool.proto", "proto/externalscaler.proto"], &["proto"])
}
