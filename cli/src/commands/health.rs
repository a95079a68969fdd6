//! `spool health`: requests a health endpoint, for container images without another HTTP client.

use std::time::Duration;

use url::Url;

use crate::{api_client, error::CliError};

/// Time that the endpoint may take to respond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Characters of a response body that the error message quotes.
const QUOTED_CHARS: usize = 500;

pub async fn run(url: Url) -> Result<(), CliError> {
    let unreachable = |source: reqwest::Error| api_client::Error::Unreachable {
        server: url.clone(),
        source: source.without_url(),
    };
    // The endpoint is on this machine, so a configured proxy must not be used.
    let client = reqwest::Client::builder().no_proxy().build().map_err(unreachable)?;
    let response = client.get(url.clone()).timeout(REQUEST_TIMEOUT).send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body: String = response.text().await.unwrap_or_default().chars().take(QUOTED_CHARS).collect();
    let detail = format!("{url} returned {status}: {}", body.trim());
    Err(api_client::Error::Refused { status, detail }.into())
}
