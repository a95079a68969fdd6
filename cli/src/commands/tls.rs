//! `spool tls`: makes the certificates of a cluster that has no authority of its own.

use crate::{
    args::{TlsCommand, TlsInitArgs},
    error::CliError,
    output,
};

pub fn run(command: &TlsCommand) -> Result<(), CliError> {
    match command {
        TlsCommand::Init(args) => init(args),
    }
}

fn init(args: &TlsInitArgs) -> Result<(), CliError> {
    let made = spool_tls::make_certificates(&args.folder, &args.member, &args.names, args.days)?;
    let (ca, cert, key) = (made.ca.display(), made.cert.display(), made.key.display());
    let authority = if made.new_authority { "new authority" } else { "authority" };
    output::print(&format!(
        "{authority}: {ca}; its key, {}, signs further certificates: keep it\n\
         this host: --tls-cert {cert} --tls-key {key} --tls-ca {ca}",
        made.ca_key.display()
    ))
}
