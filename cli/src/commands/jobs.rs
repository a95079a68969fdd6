//! `spool jobs`: asks a server for jobs, and shows what becomes of them.

use comfy_table::Cell;
use serde_json::{Map, Value, json};

use crate::{
    api::{Event, Server},
    args::{Api, Format, JobList, Jobs, OneJob, Submit},
    exit::CliError,
    local, output,
};

pub async fn run(command: Jobs) -> Result<(), CliError> {
    match command {
        Jobs::Submit(args) => submit(args).await,
        Jobs::Ls(args) => list(args).await,
        Jobs::Get(OneJob { id, api }) => {
            let job = Server::new(&api).get(&format!("v1/jobs/{id}"), &[]).await?;
            show(&api, &job)
        }
        Jobs::Watch(args) => watch(args).await,
        Jobs::Cancel(OneJob { id, api }) => ask(&id, "cancel", &api).await,
        Jobs::Retry(OneJob { id, api }) => ask(&id, "retry", &api).await,
    }
}

async fn submit(args: Submit) -> Result<(), CliError> {
    let Submit { source, destination, ladder, delete_source, sql, priority, key, api } = args;
    // A path is one of this machine's folder, where the server has another.
    let source = source.map(|source| local::absolute(&source)).transpose()?;
    let destination = destination.map(|destination| local::absolute(&destination)).transpose()?;
    let given = [("source", source), ("destination", destination), ("ladder", ladder), ("sql", sql)];
    let mut document: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    document.insert("priority".to_owned(), priority.into());
    if delete_source {
        document.insert("delete_source".to_owned(), true.into());
    }
    let job = Server::new(&api).post("v1/jobs", &Value::Object(document), key.as_deref()).await?;
    match api.output {
        Format::Json => output::print_json(&job),
        // For scripts: `spool jobs watch $(spool jobs submit talk.mp4)`.
        Format::Table => output::print(text(&job, "id")),
    }
}

async fn list(args: JobList) -> Result<(), CliError> {
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.state.map(|state| ("state", state)));
    let page = Server::new(&args.api).get("v1/jobs", &query).await?;
    if args.api.output == Format::Json {
        return output::print_json(&page);
    }
    let mut table = output::table(&["job", "state", "%", "rows", "what"]);
    for job in page["jobs"].as_array().into_iter().flatten() {
        table.add_row([
            Cell::new(text(job, "id")),
            Cell::new(standing(job)),
            output::right(&job["percent"]),
            output::right(format!("{}/{}", job["rows_done"], job["rows"])),
            Cell::new(output::shortened(what(job).to_owned())),
        ]);
    }
    output::print(&table.to_string())
}

/// Asks for something to be done with a job.
async fn ask(id: &str, what: &str, api: &Api) -> Result<(), CliError> {
    let job = Server::new(api).post(&format!("v1/jobs/{id}/{what}"), &json!({}), None).await?;
    show(api, &job)
}

/// Follows a job to its end.
async fn watch(args: OneJob) -> Result<(), CliError> {
    let OneJob { id, api } = args;
    let server = Server::new(&api);
    let cancel = local::interrupt();
    let mut follow = server.follow(&id);
    loop {
        let event = tokio::select! {
            event = follow.next() => event?,
            () = cancel.cancelled() => return Err(CliError::interrupted()),
        };
        match event {
            Some(event) => eprintln!("{}", line(&event)),
            None => break,
        }
    }
    let job = server.get(&format!("v1/jobs/{id}"), &[]).await?;
    show(&api, &job)?;
    if job["state"] == "published" {
        return Ok(());
    }
    let why = job["error"]["message"].as_str().map_or_else(String::new, |message| format!(": {message}"));
    Err(CliError::Job { id, state: text(&job, "state").to_owned(), why })
}

/// An event as a line.
fn line(event: &Event) -> String {
    let data = &event.data;
    match event.kind.as_str() {
        "job.created" => "asked for".to_owned(),
        "job.started" => format!("taken in hand by {}", text(data, "dispatcher")),
        "job.planned" => format!(
            "{} rows, {:.1} s of media",
            data["rows"],
            data["media_ms"].as_f64().unwrap_or_default() / 1000.0
        ),
        "job.progress" => format!(
            "{}%  {}, {}/{} rows",
            data["percent"],
            text(data, "phase"),
            data["rows_done"],
            data["rows"]
        ),
        "row.finished" => format!("row {} done", data["row"]),
        "row.again" => format!("row {} runs again: {}", data["row"], text(data, "reason")),
        "job.again" => {
            format!(
                "tried again in {:.1} s: {}",
                data["after_ms"].as_f64().unwrap_or_default() / 1000.0,
                text(data, "reason")
            )
        }
        "job.cancel_requested" => "asked to stop".to_owned(),
        "job.retried" => "asked to be tried again".to_owned(),
        "job.published" => "published".to_owned(),
        "job.failed" => "failed".to_owned(),
        "job.canceled" => "canceled".to_owned(),
        other => other.to_owned(),
    }
}

fn show(api: &Api, job: &Value) -> Result<(), CliError> {
    if api.output == Format::Json {
        return output::print_json(job);
    }
    let mut lines = vec![
        ("job", text(job, "id").to_owned()),
        ("what", what(job).to_owned()),
        (
            "state",
            format!("{}, {}%, {}/{} rows", standing(job), job["percent"], job["rows_done"], job["rows"]),
        ),
    ];
    lines.extend(job["error"]["message"].as_str().map(|message| ("error", message.to_owned())));
    lines.extend(job["result"]["master"].as_str().map(|master| ("master", output::display_uri(master))));
    lines.extend(job["video"].as_str().filter(|_| job["state"] == "published").map(|video| {
        let server = api.server.as_str().trim_end_matches('/');
        ("play", format!("{server}/v1/videos/{video}/play/master.m3u8"))
    }));
    lines.into_iter().try_for_each(|(name, value)| output::print(&format!("{name:7} {value}")))
}

/// Its state; of one that is worked on, what is done with it.
fn standing(job: &Value) -> &str {
    match text(job, "state") {
        "processing" => text(job, "phase"),
        "pending" if job["error"].is_object() => "waits to be tried again",
        state => state,
    }
}

fn what(job: &Value) -> &str {
    job["request"]["source"].as_str().or(job["request"]["sql"].as_str()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
