//! Clients of object stores, one per bucket, created on demand, and their options.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    http::HttpBuilder,
    multipart::MultipartStore,
};
use url::Url;

use super::{
    address::{Service, redact},
    error::{Denial, Error, innermost},
    profile,
    wire::Connector,
};
use crate::net;

/// Retries of a request after a transient failure: five attempts in total.
const RETRIES: usize = 4;

/// Time after which no further retry starts. A store that fails for longer is down, and a retry of the row is
/// better.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Waits between attempts: random between the first and three times the previous one (decorrelated jitter),
/// so that a refused connection is reported after about 5 s, and a throttling store gets up to 17 s without
/// requests.
const BACKOFF: BackoffConfig = BackoffConfig {
    init_backoff: Duration::from_millis(200),
    max_backoff: Duration::from_secs(8),
    base: 3.0,
};

/// Time limit of one request: a part of 8 MiB at 140 kB/s.
const REQUEST_MAX: Duration = Duration::from_secs(60);

/// Time limit of connecting.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Options by their environment variables' names.
pub(crate) type Options = BTreeMap<String, String>;

/// The stores that this process may use: one client per bucket, created with the first request and never
/// removed.
///
/// Options are the ordinary variables of each provider: `AWS_*` (with `~/.aws` profiles), `GOOGLE_*`,
/// `AZURE_*`, by the names that `object_store` knows them by.
#[derive(Clone)]
pub(crate) struct Clients {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    buckets: Mutex<HashMap<String, Arc<Client>>>,
    web: Connector,
    web_unlimited: Connector,
    public_web: bool,
}

/// A store, and its properties.
pub(crate) struct Client {
    pub store: Arc<dyn ObjectStore>,
    /// The same, for multipart uploads; `None` if the store has none.
    pub pieces: Option<Arc<dyn MultipartStore>>,
    /// The same, if it is S3 or compatible.
    pub amazon: Option<Arc<AmazonS3>>,
    /// `s3://bucket`; for the web the whole URL, redacted.
    pub root: String,
    /// Whether the warning about missing conditional writes was logged.
    pub warned: AtomicBool,
}

/// A bucket's store, by each of the interfaces in use.
struct Bucket {
    store: Arc<dyn ObjectStore>,
    pieces: Arc<dyn MultipartStore>,
    amazon: Option<Arc<AmazonS3>>,
}

impl Bucket {
    fn of<S: ObjectStore + MultipartStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { store: store.clone(), pieces: store, amazon: None }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The store's own `Debug` would show signed URLs.
        f.debug_tuple("Client").field(&self.root).finish()
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Option values are secrets.
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    /// Reads the options from the environment, once.
    pub(crate) fn from_env() -> Self {
        Self::with_options(
            std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Uses the given options, by the names of their environment variables; ignores the environment.
    pub(crate) fn with_options<K: Into<String>, V: Into<String>>(
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let ours = |key: &str| {
            ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| key.starts_with(prefix))
                || key == "SERVICE_ACCOUNT"
                || key == "HOME"
        };
        let options = options.into_iter().map(|(key, value)| (key.into(), value.into()));
        // An empty variable counts as unset, as for AWS's own tools.
        let options =
            options.filter(|(key, value): &(String, String)| ours(key) && !value.is_empty()).collect();
        let (web, web_unlimited) = (Connector::shared(), Connector::shared());
        Self {
            inner: Arc::new(Inner {
                options,
                buckets: Mutex::default(),
                web,
                web_unlimited,
                public_web: false,
            }),
        }
    }

    /// Returns the same stores, with http(s) limited to public addresses, for requests of untrusted clients.
    #[must_use]
    pub(crate) fn with_public_http_only(&self) -> Self {
        let inner = Inner {
            options: self.inner.options.clone(),
            buckets: Mutex::default(),
            web: Connector::public(Some(REQUEST_MAX)),
            web_unlimited: Connector::public(None),
            public_web: true,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn bucket(&self, service: Service, root: &str, authority: &str) -> Result<Arc<Client>, Error> {
        let mut buckets = self.inner.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = buckets.get(root) {
            return Ok(Arc::clone(client));
        }
        let store = match service {
            Service::S3 => self.s3(root, authority).map(|store| Bucket {
                store: store.clone(),
                pieces: store.clone(),
                amazon: Some(store),
            }),
            Service::Gcs => self.gcs(authority).map_err(|e| misconfigured(root, &e)),
            Service::Azure => self.azure(root).map_err(|e| misconfigured(root, &e)),
        }?;
        let Bucket { store, pieces, amazon } = store;
        let client = Arc::new(Client {
            store,
            pieces: Some(pieces),
            amazon,
            root: root.to_owned(),
            warned: AtomicBool::new(false),
        });
        buckets.insert(root.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// Returns the options of AWS: those of the environment, and of the chosen profile.
    pub(crate) fn amazon_options(&self, root: &str) -> Result<Options, Error> {
        let mut options = self.inner.options.clone();
        profile::complete(&mut options)
            .map_err(|e| Error::Configuration { uri: root.to_owned(), detail: e.to_string() })?;
        Ok(options)
    }

    pub(crate) fn s3(&self, root: &str, bucket: &str) -> Result<Arc<AmazonS3>, Error> {
        let options = self.amazon_options(root)?;
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .into_iter()
            .find_map(|key| options.get(key));
        // An explicit http:// endpoint allows plain HTTP.
        let allow_http = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_client_options(limits().with_allow_http(allow_http))
            .with_retry(retries())
            .with_http_connector(Connector::with_metadata_v1(options.contains_key("AWS_IMDSV1_FALLBACK")));
        for (key, value) in options.iter().filter(|(key, _)| key.starts_with("AWS_")) {
            if let Ok(key) = key.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let by_host = options.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some_and(|value| is_true(value));
        if let Some(endpoint) =
            endpoint.filter(|_| by_host).and_then(|endpoint| with_bucket_in_host(endpoint, bucket))
        {
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let store = builder.with_bucket_name(bucket).build().map_err(|e| misconfigured(root, &e))?;
        Ok(Arc::new(store))
    }

    fn gcs(&self, bucket: &str) -> object_store::Result<Bucket> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_client_options(limits())
            .with_retry(retries())
            .with_http_connector(Connector::default());
        for (key, value) in self
            .inner
            .options
            .iter()
            .filter(|(key, _)| key.starts_with("GOOGLE_") || *key == "SERVICE_ACCOUNT")
        {
            if let Ok(key) = key.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        Ok(Bucket::of(builder.with_bucket_name(bucket).build()?))
    }

    fn azure(&self, root: &str) -> object_store::Result<Bucket> {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_client_options(limits())
            .with_retry(retries())
            .with_http_connector(Connector::default());
        for (key, value) in self.inner.options.iter().filter(|(key, _)| key.starts_with("AZURE_")) {
            if let Ok(key) = key.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        Ok(Bucket::of(builder.with_url(root).build()?))
    }

    /// Returns a client for one URL. Cheap: connections are shared.
    pub(crate) fn web(&self, url: &Url) -> Result<Arc<Client>, Error> {
        self.check_web(url)?;
        web_client(url, limits().with_allow_http(true), &self.inner.web)
    }

    /// Returns a client for one long download: the request as a whole has no time limit, so the reader limits
    /// each wait.
    pub(crate) fn web_unlimited(&self, url: &Url) -> Result<Arc<Client>, Error> {
        self.check_web(url)?;
        web_client(url, limits().with_allow_http(true).with_timeout_disabled(), &self.inner.web_unlimited)
    }
}

impl Clients {
    /// Returns the number of buckets with a client.
    #[cfg(test)]
    pub(crate) fn buckets(&self) -> usize {
        self.inner.buckets.lock().unwrap().len()
    }

    fn check_web(&self, url: &Url) -> Result<(), Error> {
        let checked = if self.inner.public_web { net::check_url(url) } else { Ok(()) };
        checked.map_err(|private| Error::NotAllowed {
            uri: redact(url.as_str()),
            cause: Denial::Private(private),
        })
    }
}

/// Returns a client whose base is the URL itself, so that its query is kept; the object is the empty path.
fn web_client(url: &Url, options: ClientOptions, connector: &Connector) -> Result<Arc<Client>, Error> {
    let root = redact(url.as_str());
    let builder =
        HttpBuilder::new().with_url(url.as_str()).with_retry(retries()).with_client_options(options);
    let store =
        builder.with_http_connector(connector.clone()).build().map_err(|e| misconfigured(&root, &e))?;
    Ok(Arc::new(Client {
        store: Arc::new(store),
        pieces: None,
        amazon: None,
        root,
        warned: AtomicBool::new(false),
    }))
}

/// Returns `https://bucket.host` for `https://host`: for virtual-hosted requests `object_store` expects the
/// bucket in the endpoint, while the option has one endpoint for all buckets.
fn with_bucket_in_host(endpoint: &str, bucket: &str) -> Option<String> {
    let mut url = Url::parse(endpoint).ok()?;
    let host = url.host_str()?.to_owned();
    if !host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.')) {
        url.set_host(Some(&format!("{bucket}.{host}"))).ok()?;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// Parses a flag as `object_store` does.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
}

fn limits() -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_MAX).with_connect_timeout(CONNECT_MAX)
}

fn retries() -> RetryConfig {
    RetryConfig { backoff: BACKOFF, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}

pub(crate) fn misconfigured(root: &str, error: &object_store::Error) -> Error {
    Error::Configuration { uri: root.to_owned(), detail: innermost(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_goes_into_the_host_once() {
        let with = |endpoint| with_bucket_in_host(endpoint, "media").unwrap();
        assert_eq!(with("https://s3.example.com:9000"), "https://media.s3.example.com:9000");
        assert_eq!(with("https://media.s3.example.com/"), "https://media.s3.example.com");
        assert_eq!(with("https://mediathek.example.com"), "https://media.mediathek.example.com");
    }
}
