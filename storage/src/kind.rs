//! `ErrorKind`: classes of failures, with the HTTP status, gRPC code and exit code of each.

/// Class of a failure. It decides retries, HTTP statuses, gRPC codes and exit codes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// Credentials or permissions are missing.
    NotAllowed,
    /// The input or the request is wrong; a retry has the same result.
    BadInput,
    /// The same call could succeed later, or on another host.
    Transient,
    /// A cancellation was requested.
    Canceled,
    /// An invariant was violated: a defect of Spool or of an encoder.
    Bug,
}

/// Codes of one kind in each protocol.
struct Codes {
    http_status: u16,
    grpc_code: i32,
    exit_code: u8,
}

impl ErrorKind {
    /// Returns the codes of the kind. They are numbers, so that this crate needs neither an HTTP nor a gRPC
    /// library.
    ///
    /// Source: RFC 9110 section 15 (HTTP), `google.rpc.Code` (gRPC), `spool --help` (exit codes).
    const fn codes(self) -> Codes {
        let (http_status, grpc_code, exit_code) = match self {
            Self::NotFound => (404, 5, 3),
            Self::NotAllowed => (403, 7, 4),
            Self::BadInput => (422, 3, 1),
            Self::Transient => (503, 14, 1),
            // 130 is 128 + SIGINT, which a shell reports for a command ended by Ctrl-C.
            Self::Canceled => (503, 1, 130),
            Self::Bug => (500, 13, 1),
        };
        Codes { http_status, grpc_code, exit_code }
    }

    /// Returns the HTTP status of a response that reports this kind.
    pub const fn http_status(self) -> u16 {
        self.codes().http_status
    }

    /// Returns the gRPC status code of a response that reports this kind.
    pub const fn grpc_code(self) -> i32 {
        self.codes().grpc_code
    }

    /// Returns the exit code of a process that ends with a failure of this kind.
    pub const fn exit_code(self) -> u8 {
        self.codes().exit_code
    }

    /// Returns the kind's name in snake case: the text that JSON, the database and the wire carry.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_name_parses_back_in_text_and_in_json() {
        for kind in ErrorKind::iter() {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.to_string(), kind.name());
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.name());
            assert_eq!(serde_json::from_value::<ErrorKind>(json).unwrap(), kind);
        }
    }

    #[test]
    fn every_kind_has_codes_that_report_a_failure() {
        for kind in ErrorKind::iter() {
            assert!((400..600).contains(&kind.http_status()), "{kind}");
            assert!((1..=16).contains(&kind.grpc_code()), "{kind}");
            assert_ne!(kind.exit_code(), 0, "{kind}");
        }
    }

    #[test]
    fn no_two_kinds_share_a_grpc_code() {
        let mut codes: Vec<i32> = ErrorKind::iter().map(ErrorKind::grpc_code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::iter().count());
    }
}
