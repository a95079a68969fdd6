//! `spool health`: asks a role whether it is well, for containers that hold no other program.

use std::time::Duration;

use url::Url;

use crate::{api, exit::CliError};

/// How long it may take to say so.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub async fn run(url: Url) -> Result<(), CliError> {
    let away =
        |source: reqwest::Error| api::Error::Away { server: url.clone(), source: source.without_url() };
    // It is on this machine: no proxy is between.
    let client = reqwest::Client::builder().no_proxy().build().map_err(away)?;
    let response = client.get(url.clone()).timeout(ANSWER_WITHIN).send().await.map_err(away)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let said: String = response.text().await.unwrap_or_default().chars().take(500).collect();
    Err(api::Error::Refused { status, detail: format!("{url} answers {status}: {}", said.trim()) }.into())
}
