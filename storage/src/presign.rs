//! Presigned requests: links to upload parts to, and signatures for other AWS services, with the credentials
//! of the store.
//!
//! Source: Amazon S3 API Reference, UploadPart; "Authenticating Requests: Using Query Parameters (AWS
//! Signature Version 4)".

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningParams,
        SigningSettings, UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use object_store::{CredentialProvider, aws::AwsCredential, path::Path, signer::Signer};
use reqwest::Method;
use url::Url;

use super::{
    clients::{Client, misconfigured},
    error::Error,
};

/// Name of the service in signatures.
const S3: &str = "s3";

/// Presigned URL for one part of an upload. It needs no other credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct PartLink(pub String);

impl std::fmt::Debug for PartLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartLink(a secret)")
    }
}

/// AWS credentials of this process, for services other than stores.
#[derive(Clone)]
pub struct Amazon {
    pub(crate) keys: Arc<dyn CredentialProvider<Credential = AwsCredential>>,
    /// The region, if one is set.
    pub region: Option<String>,
}

impl std::fmt::Debug for Amazon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Amazon").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Amazon {
    /// Returns the current keys.
    ///
    /// # Errors
    /// Returns the provider's error.
    pub async fn keys(&self) -> object_store::Result<Credentials> {
        Ok(credentials(&*self.keys.get_credential().await?))
    }
}

/// Presigns links for parts of `upload`; `None` if the store is not S3.
///
/// # Errors
/// Returns [`Error::Configuration`] if there are no credentials to sign with.
pub(crate) async fn part_links(
    client: &Client,
    key: &Path,
    redacted: &str,
    upload: &str,
    parts: &[(usize, u64)],
    valid_for: Duration,
) -> Result<Option<Vec<PartLink>>, Error> {
    let Some(s3) = &client.amazon else { return Ok(None) };
    let failed = |e: object_store::Error| client.error(redacted, &e);
    let signed = s3.signed_url(Method::PUT, key, valid_for).await.map_err(failed)?;
    let keys = s3.credentials().get_credential().await.map_err(failed)?;
    let unsigned = || {
        misconfigured(
            &client.root,
            &object_store::Error::NotImplemented {
                operation: "links".to_owned(),
                implementer: "S3 without keys".to_owned(),
            },
        )
    };
    let region = region_of(&signed).ok_or_else(unsigned)?;
    let keys = credentials(&keys);
    let links =
        parts.iter().map(|part| link(&signed, upload, *part, &keys, &region, valid_for).ok_or_else(unsigned));
    Ok(Some(links.collect::<Result<_, _>>()?))
}

fn credentials(keys: &AwsCredential) -> Credentials {
    Credentials::new(&keys.key_id, &keys.secret_key, keys.token.clone(), None, "spool")
}

/// Returns the region that a link was signed for:
/// `…&X-Amz-Credential=key/20260101/us-east-1/s3/aws4_request`.
fn region_of(signed: &Url) -> Option<String> {
    let (_, scope) = signed.query_pairs().find(|(name, _)| name == "X-Amz-Credential")?;
    // From the end: a key may contain a slash.
    scope.rsplit('/').nth(2).map(str::to_owned)
}

/// Returns the link of a part, derived from that of the object.
fn link(
    object: &Url,
    upload: &str,
    (number, bytes): (usize, u64),
    keys: &Credentials,
    region: &str,
    valid_for: Duration,
) -> Option<PartLink> {
    let mut url = object.clone();
    // S3 counts from one.
    url.query_pairs_mut()
        .clear()
        .append_pair("partNumber", &(number + 1).to_string())
        .append_pair("uploadId", upload);
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(valid_for);
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = keys.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(S3)
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .ok()?;
    let length = bytes.to_string();
    let request = SignableRequest::new(
        "PUT",
        url.as_str(),
        [("content-length", length.as_str())].into_iter(),
        SignableBody::UnsignedPayload,
    )
    .ok()?;
    let (instructions, _) = sign(request, &SigningParams::V4(params)).ok()?.into_parts();
    let (_, query) = instructions.into_parts();
    for (name, value) in &query {
        url.query_pairs_mut().append_pair(name, value);
    }
    Some(PartLink(url.into()))
}
