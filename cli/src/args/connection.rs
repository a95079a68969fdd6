//! Flags of connections between roles: the cluster's token, and TLS on both sides.

use std::path::PathBuf;

use clap::Args;
use spool_tls::{ClientFiles, ServerFiles};

/// Token of the cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct TokenArgs {
    /// Bearer token of the cluster. Other users of the machine see a command's arguments: prefer
    /// --token-file, or the variable.
    #[arg(long, env = "SPOOL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the cluster's token, for its owner alone (chmod 600). A scheduler draws a token if the file
    /// does not exist. Default: spool/token in $XDG_STATE_HOME or ~/.local/state, so that the commands of one
    /// user agree.
    #[arg(long, env = "SPOOL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// TLS of a port.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerTlsArgs {
    /// Certificate of this host, in PEM, with those that lead to its authority. `spool tls init` makes one.
    /// Read again when it changes, and on SIGHUP.
    #[arg(long, env = "SPOOL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM.
    #[arg(long, env = "SPOOL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authority that must have signed the certificates of clients, in PEM. Default: clients need none.
    #[arg(long, env = "SPOOL_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
    /// Listen beyond loopback without TLS: where something else encrypts, such as an ingress or a mesh.
    #[arg(long, env = "SPOOL_INSECURE")]
    pub insecure: bool,
}

impl ServerTlsArgs {
    /// Returns the files of the port; `None` without TLS.
    pub fn files(&self) -> Option<ServerFiles> {
        let (cert, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(ServerFiles { cert, key, client_ca: self.tls_ca.clone() })
    }
}

/// TLS of a connection to a scheduler or an API.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientTlsArgs {
    /// Connect by TLS, trusting the system's authorities unless --tls-ca names one.
    #[arg(long, env = "SPOOL_TLS")]
    pub tls: bool,
    /// Authority that must have signed the server's certificate, in PEM. Implies --tls.
    #[arg(long, env = "SPOOL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this host, in PEM, for a server that asks for one.
    #[arg(long, env = "SPOOL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM.
    #[arg(long, env = "SPOOL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl ClientTlsArgs {
    /// Returns the files of connections; `None` without TLS.
    pub fn files(&self) -> Option<ClientFiles> {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        (self.tls || self.tls_ca.is_some()).then(|| ClientFiles { ca: self.tls_ca.clone(), identity })
    }
}

/// Flags of `spool tls init`.
#[derive(Debug, Args)]
pub struct TlsInitArgs {
    /// Folder for the authority (ca.pem, ca.key) and the certificate (NAME.pem, NAME.key). Made for its owner
    /// alone; an authority that is there signs the new certificate.
    pub folder: PathBuf,
    /// Host name or IP address by which others reach this host. May be repeated. localhost, 127.0.0.1 and ::1
    /// are added.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Name of the certificate's files, and of its subject.
    #[arg(long, value_name = "NAME", default_value = "host")]
    pub member: String,
    /// Days for which the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..=3650))]
    pub days: i64,
}
