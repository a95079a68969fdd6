//! Exit codes of `spool`, as README.md documents them.

use spool_storage::ErrorKind;

/// The job failed, or the failure has no code of its own.
pub const FAILED: u8 = ErrorKind::BadInput.exit_code();
/// The command line or the request is wrong.
pub const USAGE: u8 = 2;
/// A named object does not exist.
pub const NOT_FOUND: u8 = ErrorKind::NotFound.exit_code();
/// Credentials or permissions are missing.
pub const NOT_ALLOWED: u8 = ErrorKind::NotAllowed.exit_code();
/// The API or the scheduler is unreachable, or the scheduler has no executor.
pub const UNREACHABLE: u8 = 5;
/// Interrupted by Ctrl-C or a signal.
pub const INTERRUPTED: u8 = ErrorKind::Canceled.exit_code();
