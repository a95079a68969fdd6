//! PEM files: certificates, keys and authorities.

use std::{os::unix::fs::PermissionsExt, path::Path};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::error::{Error, Result};

/// Reads the certificates of a file, the owner's first.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |detail: String| Error::Read { path: path.to_owned(), expected: "certificates", detail };
    let read = CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(|e| failed(e.to_string()))?;
    if certificates.is_empty() { Err(failed("it has no certificate".to_owned())) } else { Ok(certificates) }
}

/// Reads the key of a file, which must be closed to other users.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let failed = |detail: String| Error::Read { path: path.to_owned(), expected: "a private key", detail };
    let metadata = std::fs::symlink_metadata(path).map_err(|e| failed(e.to_string()))?;
    // Kubernetes mounts a secret as links, in a folder that only the pod sees.
    if metadata.is_file() && metadata.permissions().mode() & 0o007 != 0 {
        return Err(Error::OpenKey { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|e| failed(e.to_string()))
}

/// Reads the authorities of a file.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let failed = |e: rustls::Error| Error::Authority { path: path.to_owned(), detail: e.to_string() };
        roots.add(certificate).map_err(failed)?;
    }
    Ok(roots)
}
