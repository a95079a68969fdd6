//! Self-test of the sandbox: runs this program in FFmpeg's place, and reports which actions the sandbox
//! denied.

use std::{env, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Error, Invocation, Limits, Program, Tools,
    sandbox::{CHECK, COMMAND},
};
use crate::limits::MEMORY_MAX;

/// Time limit of [`check_sandbox`].
const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the actions that a sandbox should deny, and whether it denied each of them.
///
/// # Errors
/// Returns an error if the self-test cannot run: [`SandboxMode`](super::SandboxMode) is off, or the program
/// cannot be started.
pub async fn check_sandbox(tools: &Tools, scratch: &Path) -> Result<Vec<(String, bool)>, Error> {
    let program = Program::Ffmpeg;
    let failed = |source| Error::Start { program, source };
    // This program in FFmpeg's place, so that it has FFmpeg's rights.
    let tools = Tools { ffmpeg: env::current_exe().map_err(failed)?, ..tools.clone() };
    let args = [COMMAND.into(), CHECK.into()];
    let cancel = CancellationToken::new();
    let limits = Limits::within(TIMEOUT, 1 << 16, MEMORY_MAX);
    let job = Invocation {
        tools: &tools,
        program,
        args: &args,
        scratch,
        input: None,
        limits,
        cancel: &cancel,
        report: false,
    };
    let output = job.capture().await?;
    serde_json::from_slice(&output).map_err(|error| failed(error.into()))
}
