//! Is what came what was sent?

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, digest::DynDigest};

use crate::problem::{Problem, ProblemKind};

/// The ways that are known, as they are announced.
pub(crate) const KNOWN: &str = "sha1,sha256,md5";

/// What the bytes of a request should come to.
///
/// Source: tus resumable upload protocol 1.0, checksum extension.
pub(crate) struct Checksum {
    digest: Box<dyn DynDigest + Send>,
    expected: Vec<u8>,
}

impl Checksum {
    /// Reads `sha1 BASE64`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(
                ProblemKind::Malformed,
                format!("Upload-Checksum: it must be one of {KNOWN}, a blank, and base64"),
            )
        };
        let (name, sum) = text.split_once(' ').ok_or_else(wrong)?;
        let digest: Box<dyn DynDigest + Send> = match name {
            "sha1" => of::<Sha1>(),
            "sha256" => of::<Sha256>(),
            "md5" => of::<Md5>(),
            _ => return Err(wrong()),
        };
        let expected = BASE64_STANDARD.decode(sum.trim()).map_err(|_| wrong())?;
        if expected.len() == digest.output_size() { Ok(Self { digest, expected }) } else { Err(wrong()) }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// Refuses what came to something else.
    pub(crate) fn verify(self) -> Result<(), Problem> {
        if self.digest.finalize()[..] == self.expected[..] {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Checksum,
            "what came is not what its checksum says, and is not kept: send it again",
        ))
    }
}

fn of<D: Default + DynDigest + Send + 'static>() -> Box<dyn DynDigest + Send> {
    Box::new(D::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_what_others_say_they_are() {
        let sums = [
            "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
            "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "md5 kAFQmDzST7DWlj99KOF/cg==",
        ];
        for sum in sums {
            let mut checksum = Checksum::parse(sum).unwrap();
            checksum.update(b"a");
            checksum.update(b"bc");
            checksum.verify().unwrap();
            let mut checksum = Checksum::parse(sum).unwrap();
            checksum.update(b"abx");
            assert_eq!(checksum.verify().unwrap_err().status, 460);
        }
        for wrong in ["", "sha1", "sha1 !", "sha1 YWJj", "crc32 YWJj", "md5  "] {
            assert!(Checksum::parse(wrong).is_err_and(|problem| problem.status == 400), "{wrong}");
        }
    }
}
