//! A cluster serves the clients that its users have: a database client, an autoscaler, Prometheus.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start what they test")]

use std::{
    process::{Command, Output},
    time::Duration,
};

use spool_tests::{cluster::Cluster, ffmpeg_wrapper::FfmpegWrapper, folder, footage, run::wait_until};
use spool_wire::keda::{GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient};

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a statement by ADBC's Flight SQL driver.
fn adbc(address: &str, token: &str, sql: &str) -> Output {
    let root = spool_tests::repository::root();
    let python = root.join(".cache/python");
    assert!(python.exists(), "run scripts/python-setup .cache/python tests/clients/requirements.txt first");
    let script = root.join("tests/clients/statement.py");
    Command::new("python3")
        .env("PYTHONPATH", python)
        .arg(script)
        .args([address, token, sql])
        .output()
        .unwrap()
}

fn rows(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_statement_of_the_readme_runs_by_adbc() {
    let readme = include_str!("../../README.md");
    let statement = readme.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "talk.mp4", 4, 90);
    let out = folder.path().join("out");
    // The driver sends a statement as it is, so its last character must not be one that ends it twice.
    let statement = statement
        .replace("s3://uploads/talk.mp4", source.to_str().unwrap())
        .replace("s3://media/talk/", out.to_str().unwrap());
    let ffmpeg = FfmpegWrapper::new();
    let mut cluster = Cluster::start(0, &ffmpeg.path(), &["--token", "open sesame"]);
    cluster.add_executor(&["--token", "open sesame"]);
    cluster.wait_for_slots(1);
    let published = rows(&adbc(&cluster.address(), "open sesame", &statement));
    let published = published[0].as_object().unwrap().values().next().unwrap();
    assert_eq!(published["master"], format!("file://{}/master.m3u8", out.display()));
    let files = folder::media(&out);
    assert_eq!(folder::reachable(&files), files.keys().cloned().collect());

    let tables = rows(&adbc(
        &cluster.address(),
        "open sesame",
        &format!("SELECT track, frames FROM segments('{}')", source.display()),
    ));
    assert_eq!(
        tables,
        serde_json::json!([{ "track": "audio", "frames": 100 }, { "track": "video", "frames": 100 }])
    );
    let refused = adbc(&cluster.address(), "", "SELECT 1");
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("SPOOL_TOKEN"),
        "{refused:?}"
    );
    let missing = adbc(&cluster.address(), "open sesame", "SELECT * FROM segments('/nowhere/talk.mp4')");
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("/nowhere/talk.mp4 does not exist"),
        "{missing:?}"
    );
    cluster.stop();
}

#[test]
fn an_autoscaler_gets_the_waiting_and_running_rows() {
    let folder = tempfile::tempdir().unwrap();
    let source = footage::bunny(folder.path(), "talk.mp4", 8, 90);
    let out = folder.path().join("out");
    let ffmpeg = FfmpegWrapper::new();
    ffmpeg.slow_after(0);
    let cluster = Cluster::start(0, &ffmpeg.path(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = || {
        runtime.block_on(async {
            let mut scaler =
                ExternalScalerClient::connect(format!("http://{}", cluster.address())).await.unwrap();
            let object = ScaledObjectRef {
                scaler_metadata: [
                    ("rowsPerExecutor".to_owned(), "2".to_owned()),
                    ("tokenFromEnv".to_owned(), cluster.token().unwrap()),
                ]
                .into(),
                ..Default::default()
            };
            let active = scaler.is_active(object.clone()).await.unwrap().into_inner().result;
            let spec =
                scaler.get_metric_spec(object.clone()).await.unwrap().into_inner().metric_specs.remove(0);
            let request =
                GetMetricsRequest { scaled_object_ref: Some(object), metric_name: spec.metric_name.clone() };
            let value = scaler.get_metrics(request).await.unwrap().into_inner().metric_values.remove(0);
            (active, spec.target_size, value.metric_value)
        })
    };
    assert_eq!(ask(), (false, 2, 0));
    let args = [
        "transcode",
        source.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
        "--segment",
        "2",
        "--media-segment",
        "1",
    ];
    let running = cluster.spool(&args).start();
    // Waiting work wakes up a cluster without executors.
    wait_until("some demand", DEADLINE, || ask().0.then_some(()));
    let mut cluster = cluster;
    cluster.add_executor(&[]);
    wait_until("the report of all rows", DEADLINE, || {
        let demand = cluster.demand()?;
        (demand["rows_running"] == 1 && demand["rows_waiting"] == 4).then_some(())
    });
    let demand = cluster.demand().unwrap();
    // Sound and pictures of eight seconds each.
    assert_eq!(demand["media_seconds_left"], 16);
    let metrics = cluster.http("GET", "/metrics").unwrap();
    assert!(
        metrics.contains("\nspool_rows_waiting 4\n") && metrics.contains("\nspool_slots 1\n"),
        "{metrics}"
    );
    ffmpeg.full_speed();
    running.signal(nix::sys::signal::Signal::SIGINT);
    running.wait();
    wait_until("the end of the demand", DEADLINE, || {
        (cluster.demand()?["rows_waiting"] == 0 && cluster.demand()?["rows_running"] == 0).then_some(())
    });
    cluster.stop();
}
