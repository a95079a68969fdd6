//! `spool jobs`: submits jobs to an API, and shows and follows them.

use comfy_table::Cell;
use serde_json::{Map, Value, json};

use crate::{
    api_client::{ApiClient, Event},
    args::{ApiClientArgs, JobArgs, JobListArgs, JobSubmitArgs, JobsCommand, OutputFormat},
    error::CliError,
    output, paths, signals,
};

pub async fn run(command: JobsCommand) -> Result<(), CliError> {
    match command {
        JobsCommand::Submit(args) => submit(args).await,
        JobsCommand::Ls(args) => list(args).await,
        JobsCommand::Get(JobArgs { id, api }) => {
            let job = ApiClient::new(&api)?.get(&format!("v1/jobs/{id}"), &[]).await?;
            print(&api, &job)
        }
        JobsCommand::Watch(args) => watch(args).await,
        JobsCommand::Cancel(JobArgs { id, api }) => post_action(&id, "cancel", &api).await,
        JobsCommand::Retry(JobArgs { id, api }) => post_action(&id, "retry", &api).await,
    }
}

async fn submit(args: JobSubmitArgs) -> Result<(), CliError> {
    let JobSubmitArgs { source, destination, ladder, delete_source, sql, priority, idempotency_key, api } =
        args;
    // Paths are resolved here, since the cluster's processes have other working folders.
    let source = source.map(|source| paths::absolute(&source)).transpose()?;
    let destination = destination.map(|destination| paths::absolute(&destination)).transpose()?;
    let given = [("source", source), ("destination", destination), ("ladder", ladder), ("sql", sql)];
    let mut document: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    document.insert("priority".to_owned(), priority.into());
    if delete_source {
        document.insert("delete_source".to_owned(), true.into());
    }
    let job =
        ApiClient::new(&api)?.post("v1/jobs", &Value::Object(document), idempotency_key.as_deref()).await?;
    match api.output {
        OutputFormat::Json => output::print_json(&job),
        // For scripts: `spool jobs watch $(spool jobs submit talk.mp4)`.
        OutputFormat::Table => output::print(text(&job, "id")),
    }
}

async fn list(args: JobListArgs) -> Result<(), CliError> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.state.map(|state| ("state", state)));
    let page = ApiClient::new(&args.api)?.get("v1/jobs", &query).await?;
    if args.api.output == OutputFormat::Json {
        return output::print_json(&page);
    }
    let mut table = output::table(&["job", "state", "%", "rows", "request"]);
    for job in page["jobs"].as_array().into_iter().flatten() {
        table.add_row([
            Cell::new(text(job, "id")),
            Cell::new(status(job)),
            output::right(&job["percent"]),
            output::right(format!("{}/{}", job["rows_done"], job["rows"])),
            Cell::new(output::shortened(request(job).to_owned())),
        ]);
    }
    output::print(&table.to_string())
}

/// Posts an action on a job, and prints the job.
async fn post_action(id: &str, action: &str, api: &ApiClientArgs) -> Result<(), CliError> {
    let job = ApiClient::new(api)?.post(&format!("v1/jobs/{id}/{action}"), &json!({}), None).await?;
    print(api, &job)
}

/// Follows a job to its end.
async fn watch(args: JobArgs) -> Result<(), CliError> {
    let JobArgs { id, api } = args;
    let client = ApiClient::new(&api)?;
    let cancel = signals::interrupt();
    let mut events = client.events(&id);
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            () = cancel.cancelled() => return Err(CliError::interrupted()),
        };
        match event {
            Some(event) => eprintln!("{}", line(&event)),
            None => break,
        }
    }
    let job = client.get(&format!("v1/jobs/{id}"), &[]).await?;
    print(&api, &job)?;
    if job["state"] == "published" {
        return Ok(());
    }
    let reason = job["error"]["message"].as_str().map_or_else(String::new, |message| format!(": {message}"));
    Err(CliError::Job { id, state: text(&job, "state").to_owned(), reason })
}

/// Returns an event as a line.
fn line(event: &Event) -> String {
    let data = &event.data;
    let seconds = |field: &str| data[field].as_f64().unwrap_or_default() / 1000.0;
    match event.kind.as_str() {
        "job.created" => "submitted".to_owned(),
        "job.started" => format!("started by {}", text(data, "dispatcher")),
        "job.planned" => format!("{} rows, {:.1} s of media", data["rows"], seconds("media_ms")),
        "job.progress" => format!(
            "{}%  {}, {}/{} rows",
            data["percent"],
            text(data, "phase"),
            data["rows_done"],
            data["rows"]
        ),
        "row.finished" => format!("row {} finished", data["ordinal"]),
        "row.retried" => format!("row {} is retried: {}", data["ordinal"], text(data, "reason")),
        "job.retry_scheduled" => format!("retried in {:.1} s: {}", seconds("after_ms"), text(data, "reason")),
        "job.cancel_requested" => "cancellation requested".to_owned(),
        "job.retried" => "retry requested".to_owned(),
        "job.published" => "published".to_owned(),
        "job.failed" => "failed".to_owned(),
        "job.canceled" => "canceled".to_owned(),
        other => other.to_owned(),
    }
}

fn print(api: &ApiClientArgs, job: &Value) -> Result<(), CliError> {
    if api.output == OutputFormat::Json {
        return output::print_json(job);
    }
    let mut lines = vec![
        ("job", text(job, "id").to_owned()),
        ("request", request(job).to_owned()),
        ("state", format!("{}, {}%, {}/{} rows", status(job), job["percent"], job["rows_done"], job["rows"])),
    ];
    lines.extend(job["error"]["message"].as_str().map(|message| ("error", message.to_owned())));
    lines.extend(job["result"]["master"].as_str().map(|master| ("master", paths::display_uri(master))));
    lines.extend(job["video"].as_str().filter(|_| job["state"] == "published").map(|video| {
        let server = api.server.as_str().trim_end_matches('/');
        ("play", format!("{server}/v1/videos/{video}/play/master.m3u8"))
    }));
    lines.into_iter().try_for_each(|(name, value)| output::print(&format!("{name:7} {value}")))
}

/// Returns the phase of a running job, and the state of any other.
fn status(job: &Value) -> &str {
    match text(job, "state") {
        "processing" => text(job, "phase"),
        "pending" if job["error"].is_object() => "waiting for a retry",
        state => state,
    }
}

/// Returns the source or the statement that a job was submitted with.
fn request(job: &Value) -> &str {
    job["request"]["source"].as_str().or(job["request"]["sql"].as_str()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
