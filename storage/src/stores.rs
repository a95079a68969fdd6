//! `Stores`: the object stores that a process can reach. Resolves URIs to locations.

use std::sync::Arc;

use crate::{
    address::{Address, redact},
    backend::{Backend, bucket::BucketBackend, local::LocalBackend, web::WebBackend},
    clients::Clients,
    error::Error,
    location::Location,
    presign::Amazon,
};

/// Bucket of a client that sends no request to it: an S3 client needs one.
const ANY: &str = "s3://any";

/// The stores that a process may use: one client per bucket, created with the first request and never
/// removed.
///
/// Options are the ordinary variables of each provider: `AWS_*` (with `~/.aws` profiles), `GOOGLE_*`,
/// `AZURE_*`, by the names that `object_store` knows them by.
#[derive(Debug, Clone)]
pub struct Stores {
    clients: Clients,
}

impl Stores {
    /// Reads the options from the environment, once.
    pub fn from_env() -> Self {
        Self { clients: Clients::from_env() }
    }

    /// Uses the given options, by the names of their environment variables; ignores the environment.
    pub fn with_options<K: Into<String>, V: Into<String>>(options: impl IntoIterator<Item = (K, V)>) -> Self {
        Self { clients: Clients::with_options(options) }
    }

    /// Refuses http(s) sources at private addresses, for requests of untrusted clients; returns the updated
    /// stores.
    #[must_use]
    pub fn with_public_http_only(&self) -> Self {
        Self { clients: self.clients.with_public_http_only() }
    }

    /// Resolves a path or URI to a location. No request is sent yet.
    ///
    /// Plain paths are literal; `file://` is percent-decoded; keys of `s3://`, `gs://`, `az://` and `abfs://`
    /// are literal, as in the providers' own tools; `http://` and `https://` can only be read.
    ///
    /// # Errors
    /// Returns [`Error::BadAddress`], [`Error::UnknownScheme`], or [`Error::Configuration`] if the options
    /// are invalid.
    pub fn locate(&self, uri: &str) -> Result<Location, Error> {
        let address = Address::parse(uri)?;
        let uri = address.uri();
        let redacted = redact(&uri);
        let backend: Arc<dyn Backend> = match address {
            Address::Local(path) => Arc::new(LocalBackend::new(path, redacted)),
            Address::Bucket { service, root, authority, key } => {
                Arc::new(BucketBackend::new(self.clients.bucket(service, &root, &authority)?, key, redacted))
            }
            Address::Web(url) => Arc::new(WebBackend::new(self.clients.clone(), url, redacted)),
        };
        Ok(Location::new(uri, backend))
    }

    /// Returns the credentials for other AWS services, from the same chain as the stores'.
    ///
    /// # Errors
    /// Returns [`Error::Configuration`] if the options are invalid.
    pub fn amazon(&self) -> Result<Amazon, Error> {
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let options = self.clients.amazon_options(ANY)?;
        let region = region.into_iter().find_map(|name| options.get(name).cloned());
        Ok(Amazon { keys: Arc::clone(self.clients.s3(ANY, "any")?.credentials()), region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_bucket_gets_a_client_from_its_own_variables() {
        let options = [
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_BUCKET", "not this one"),
            ("AWS_PAGER", "no option of a store"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
        ];
        let stores = Stores::with_options(options);
        for uri in
            ["s3://media/a", "gs://media/a", "az://media/a", "abfss://media@account.dfs.core.windows.net/a"]
        {
            let location = stores.locate(uri).unwrap();
            assert_eq!((location.uri(), location.child("b/c").uri()), (uri, format!("{uri}/b/c").as_str()));
        }
        assert_eq!(stores.clients.buckets(), 4);
        stores.locate("s3://media/another").unwrap();
        assert_eq!(stores.clients.buckets(), 4, "one client per bucket");
    }
}
