//! Checksums of uploads: detect bytes that were altered in transit.

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, digest::DynDigest};

use crate::problem::{Problem, ProblemKind};

/// Supported algorithms, as `Tus-Checksum-Algorithm` lists them.
pub(crate) const ALGORITHMS: &str = "sha1,sha256,md5";

/// Expected checksum of the bytes of a request.
///
/// Source: tus resumable upload protocol 1.0, checksum extension.
pub(crate) struct Checksum {
    digest: Box<dyn DynDigest + Send>,
    expected: Vec<u8>,
}

impl Checksum {
    /// Parses the text of `Upload-Checksum`, such as `sha1 BASE64`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let malformed = || {
            Problem::new(
                ProblemKind::Malformed,
                format!("Upload-Checksum: must be one of {ALGORITHMS}, a blank, and base64"),
            )
        };
        let (name, sum) = text.split_once(' ').ok_or_else(malformed)?;
        let digest: Box<dyn DynDigest + Send> = match name {
            "sha1" => digest::<Sha1>(),
            "sha256" => digest::<Sha256>(),
            "md5" => digest::<Md5>(),
            _ => return Err(malformed()),
        };
        let expected = BASE64_STANDARD.decode(sum.trim()).map_err(|_| malformed())?;
        if expected.len() == digest.output_size() { Ok(Self { digest, expected }) } else { Err(malformed()) }
    }

    /// Adds bytes of the request.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// Returns an error if the bytes have another checksum.
    pub(crate) fn verify(self) -> Result<(), Problem> {
        if self.digest.finalize()[..] == self.expected[..] {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Checksum,
            "the checksum does not match and the bytes were discarded; send them again",
        ))
    }
}

fn digest<D: Default + DynDigest + Send + 'static>() -> Box<dyn DynDigest + Send> {
    Box::new(D::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_checksums_are_accepted_and_others_refused() {
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
        for malformed in ["", "sha1", "sha1 !", "sha1 YWJj", "crc32 YWJj", "md5  "] {
            assert!(Checksum::parse(malformed).is_err_and(|problem| problem.status == 400), "{malformed}");
        }
    }
}
