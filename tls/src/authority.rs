//! A private authority for a cluster: one certificate that all of its members trust, and the certificate by
//! which each is known.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::error::{Error, Result};

/// Name of the authority. Certificates that it signs name it, so it does not change.
const AUTHORITY_NAME: &str = "Spool cluster authority";

/// How long the authority is valid.
const AUTHORITY_DAYS: i64 = 3650;

/// Certificates begin an hour ago: the clocks of a cluster differ.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// Files that [`make_certificates`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The authority's certificate, for `--tls-ca`.
    pub ca: PathBuf,
    /// The authority's key, by which further certificates are signed. Members do not need it.
    pub ca_key: PathBuf,
    /// The member's certificate, for `--tls-cert`.
    pub cert: PathBuf,
    /// The member's key, for `--tls-key`.
    pub key: PathBuf,
    /// Whether the authority is new; `false` if the folder had one.
    pub new_authority: bool,
}

/// Makes a certificate for a member of a cluster in a folder that only its owner can read, and an authority
/// that signs it if the folder has none. The certificate serves at both ends of a connection.
///
/// `names` are the host names and IP addresses by which others reach the member; `localhost`, 127.0.0.1 and
/// ::1 are added. `days` is how long the certificate is valid.
///
/// # Errors
/// Returns an error if a name is malformed, or if a file cannot be written.
pub fn make_certificates(folder: &Path, member: &str, names: &[String], days: i64) -> Result<Made> {
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let (ca, ca_key) = (folder.join("ca.pem"), folder.join("ca.key"));
    let new_authority = !ca_key.exists();
    let signing_key = if new_authority {
        let signing_key = KeyPair::generate()?;
        let certificate = authority(AUTHORITY_DAYS)?.self_signed(&signing_key)?;
        // The key comes last: a folder with a key is whole.
        write(&ca, certificate.pem().as_bytes(), 0o644)?;
        write(&ca_key, signing_key.serialize_pem().as_bytes(), 0o600)?;
        signing_key
    } else {
        let text = fs::read_to_string(&ca_key).map_err(|e| Error::Read {
            path: ca_key.clone(),
            expected: "the authority's private key",
            detail: e.to_string(),
        })?;
        KeyPair::from_pem(&text)?
    };
    let issuer = Issuer::new(authority(AUTHORITY_DAYS)?, signing_key);
    let (certificate, member_key) = member_certificate(&issuer, member, names, days)?;
    let (cert, key) = (folder.join(format!("{member}.pem")), folder.join(format!("{member}.key")));
    write(&key, member_key.serialize_pem().as_bytes(), 0o600)?;
    write(&cert, certificate.pem().as_bytes(), 0o644)?;
    Ok(Made { ca, ca_key, cert, key, new_authority })
}

fn authority(days: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, days);
    Ok(params)
}

fn member_certificate(
    issuer: &Issuer<'_, KeyPair>,
    member: &str,
    names: &[String],
    days: i64,
) -> Result<(Certificate, KeyPair)> {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut all: Vec<String> = names.to_vec();
    all.extend(local.into_iter().filter(|name| !names.contains(name)));
    // An address is recognized as one, and stands in the certificate as such.
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name.push(DnType::CommonName, member);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, days);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate, key))
}

fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now.saturating_add(Duration::days(days));
}

/// Writes a file whole or not at all, with these permissions from the first byte on.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::{ClientFiles, ServerFiles, ServerTls, connect};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Connects a client to a server over memory and sends a byte each way.
    async fn talk(server: &ServerTls, client: &ClientFiles, host: &str) -> io::Result<()> {
        let (near, far) = duplex(1 << 14);
        let serving = async {
            let mut stream = server.accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte + 1).await?;
            stream.shutdown().await
        };
        let calling = async {
            let mut stream = connect(client, host, &["h2"], near).await?;
            stream.write_u8(1).await?;
            assert_eq!(stream.read_u8().await?, 2);
            Ok::<_, io::Error>(())
        };
        let (served, called) = tokio::join!(serving, calling);
        called.and(served)
    }

    fn server(made: &Made, client_ca: Option<&Made>) -> ServerTls {
        let files = ServerFiles {
            cert: made.cert.clone(),
            key: made.key.clone(),
            client_ca: client_ca.map(|made| made.ca.clone()),
        };
        ServerTls::load(files, &["h2", "http/1.1"]).unwrap()
    }

    #[tokio::test]
    async fn members_of_one_authority_trust_each_other_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["node-1.example".to_owned(), "10.42.0.7".to_owned()];
        let here = make_certificates(&folder.path().join("here"), "node", &names, 30).unwrap();
        let there = make_certificates(&folder.path().join("there"), "node", &names, 30).unwrap();
        assert!(here.new_authority);
        let trusting = |made: &Made, identity: Option<&Made>| ClientFiles {
            ca: Some(made.ca.clone()),
            identity: identity.map(|made| (made.cert.clone(), made.key.clone())),
        };
        let mutual = server(&here, Some(&here));
        for host in ["node-1.example", "10.42.0.7", "localhost", "[::1]"] {
            talk(&mutual, &trusting(&here, Some(&here)), host).await.unwrap();
        }
        assert!(
            talk(&mutual, &trusting(&here, Some(&here)), "node-2.example").await.is_err(),
            "another name"
        );
        assert!(talk(&mutual, &trusting(&here, None), "localhost").await.is_err(), "no certificate");
        assert!(talk(&mutual, &trusting(&here, Some(&there)), "localhost").await.is_err(), "a foreign one");
        assert!(
            talk(&mutual, &trusting(&there, Some(&here)), "localhost").await.is_err(),
            "a foreign server"
        );
        talk(&server(&here, None), &trusting(&here, None), "localhost").await.unwrap();
    }

    #[tokio::test]
    async fn a_second_certificate_is_signed_by_the_same_authority_and_read_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = make_certificates(folder.path(), "node", &[], 30).unwrap();
        let authority = fs::read(&first.ca).unwrap();
        let client = ClientFiles { ca: Some(first.ca.clone()), identity: None };
        let server = server(&first, None);
        assert!(talk(&server, &client, "node-2.example").await.is_err());
        let second = make_certificates(folder.path(), "node", &["node-2.example".to_owned()], 30).unwrap();
        assert!(!second.new_authority && fs::read(&second.ca).unwrap() == authority);
        server.reload().unwrap();
        talk(&server, &client, "node-2.example").await.unwrap();
        fs::write(&second.cert, "no certificate").unwrap();
        let error = server.reload().unwrap_err().to_string();
        assert!(error.contains("node.pem") && error.contains("certificates"), "{error}");
        talk(&server, &client, "node-2.example").await.unwrap();
    }

    #[test]
    fn keys_are_private_and_open_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made = make_certificates(&folder.path().join("tls"), "node", &[], 30).unwrap();
        assert_eq!(
            (mode(&made.key), mode(&made.ca_key), mode(&folder.path().join("tls"))),
            (0o600, 0o600, 0o700)
        );
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o644)).unwrap();
        let files = ServerFiles { cert: made.cert, key: made.key, client_ca: None };
        let error = ServerTls::load(files, &["h2"]).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(make_certificates(folder.path(), "node", &["no\u{e4}me".to_owned()], 30).is_err());
    }
}
