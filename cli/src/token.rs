//! The token of a cluster: given, read from a file, or drawn by the scheduler and kept in a file that the
//! other commands of its user read.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use spool_executor::TokenSource;
use tracing::warn;

use crate::{args::TokenArgs, error::CliError};

/// The token's file in the user's state folder.
const FILE: &str = "spool/token";

/// Random bytes of a drawn token.
const TOKEN_BYTES: usize = 32;

/// Returns the token that a scheduler requires. If its file does not exist, a token is drawn and written
/// there, for this user alone.
pub fn of_scheduler(args: &TokenArgs) -> Result<String, CliError> {
    if let Some(token) = &args.token {
        return checked(token, "--token");
    }
    let path = args.token_file.clone().or_else(default_file).ok_or_else(|| {
        CliError::Usage(
            "no token is given, and without HOME there is no place for one: give --token-file".to_owned(),
        )
    })?;
    match read(&path)? {
        Some(token) => Ok(token),
        None => draw(&path),
    }
}

/// Returns the token that an executor or a client sends: a given one, or that of the default file if there
/// is one.
pub fn of_client(args: &TokenArgs) -> Result<Option<String>, CliError> {
    if let Some(token) = &args.token {
        return checked(token, "--token").map(Some);
    }
    match (&args.token_file, default_file()) {
        (Some(path), _) => match read(path)? {
            Some(token) => Ok(Some(token)),
            None => Err(read_error(path, io::ErrorKind::NotFound.into())),
        },
        (None, Some(path)) => read(&path),
        (None, None) => Ok(None),
    }
}

/// Returns the source of the token that an executor sends. A file that does not exist yet is read again for
/// the next session: the scheduler that draws the token may start later.
pub fn of_executor(args: TokenArgs) -> TokenSource {
    Arc::new(move || {
        of_client(&args).unwrap_or_else(|error| {
            warn!(%error, "no token");
            None
        })
    })
}

fn default_file() -> Option<PathBuf> {
    let folder =
        |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join(FILE))
}

/// Reads a token; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, CliError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read_error(path, error)),
    };
    let metadata = fs::symlink_metadata(path).map_err(|error| read_error(path, error))?;
    // Kubernetes mounts a secret as links, in a folder that only the pod sees.
    if metadata.is_file() && (metadata.permissions().mode() & 0o007 != 0 || is_foreign(&metadata)) {
        return Err(CliError::Usage(format!(
            "other users can read or replace the token in {0}: it must be this user's, and chmod 600 {0}",
            path.display()
        )));
    }
    checked(text.trim(), &path.display().to_string()).map(Some)
}

/// Returns whether a file belongs to another user, who is not root.
fn is_foreign(metadata: &fs::Metadata) -> bool {
    metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw()
}

/// Draws a token and writes it. Of two schedulers that start at the same time, both take the first one's.
fn draw(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::Write { path: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| failed(io::Error::other(e.to_string())))?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Put into place whole: a reader sees no half of it, and an existing file stays.
    let written = || -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        writeln!(file, "{token}")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map(drop).map_err(|error| error.error)
    };
    match written() {
        Ok(()) => Ok(token),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| failed(error))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Checks that a token can be sent in a header.
fn checked(token: &str, origin: &str) -> Result<String, CliError> {
    if !token.is_empty() && token.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        Ok(token.to_owned())
    } else {
        Err(CliError::Usage(format!(
            "the token of {origin} is empty, or has characters that a header cannot carry"
        )))
    }
}

fn read_error(path: &Path, source: io::Error) -> CliError {
    CliError::Read { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(path: &Path) -> TokenArgs {
        TokenArgs { token: None, token_file: Some(path.to_owned()) }
    }

    #[test]
    fn a_drawn_token_is_private_and_the_same_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/spool/token");
        assert!(of_client(&of_file(&path)).is_err(), "a file that is named must exist");
        let drawn: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| of_scheduler(&of_file(&path)).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(drawn.iter().all(|token| *token == drawn[0] && token.len() == 64), "{drawn:?}");
        assert_eq!(of_client(&of_file(&path)).unwrap().as_deref(), Some(drawn[0].as_str()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = of_scheduler(&of_file(&path)).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        for token in ["", "line\n", "\u{fc}"] {
            let args = TokenArgs { token: Some(token.to_owned()), token_file: None };
            assert!(of_client(&args).is_err() && of_scheduler(&args).is_err(), "{token:?}");
        }
    }
}
