//! Files in an S3-compatible bucket. An upload appears when it is complete, so nothing has to be renamed.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    ClientOptions, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    path::Path,
};
use sepal_database::connector::{Fault, FaultKind, Secrets, SinkSpec};

use super::{
    super::{
        Reach,
        bounds::{shown, within},
        misconfigured,
        options::{Options, SecretOption},
    },
    Rolling, Shelf,
};
use crate::egress::Scrubber;

/// Of a response. Those to uploads and deletions are a kilobyte of XML.
const MOST_RESPONSE_BYTES: usize = 64 << 10;
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// An upload may take longer, as long as it is not slower than this.
const LEAST_BYTES_PER_SECOND: u64 = 256 << 10;

/// What the options say.
#[derive(Clone, Debug)]
pub(in super::super) struct Bucket {
    bucket: String,
    prefix: Path,
    region: String,
    /// Amazon's unless an option says otherwise.
    endpoint: url::Url,
    access_key_id: String,
    secret_access_key: SecretOption,
}

/// A bucket with its credentials.
pub(in super::super) struct OpenBucket {
    store: AmazonS3,
    prefix: Path,
    scrubber: Scrubber,
    secrets: Arc<dyn Secrets>,
    key: SecretOption,
    /// Of the key that requests are signed with.
    key_version: String,
    host: String,
}

impl fmt::Debug for OpenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Bucket {
    pub fn parse(options: &Options<'_>) -> Result<Self, Fault> {
        let url = options.required("url")?;
        let parsed = url::Url::parse(url)
            .ok()
            .filter(|url| url.scheme() == "s3" && url.host_str().is_some())
            .ok_or_else(|| misconfigured("/url: s3://bucket/prefix is wanted"))?;
        let region = options.text("region")?.unwrap_or("us-east-1").to_owned();
        let endpoint = match options.text("endpoint")? {
            Some(endpoint) => endpoint.to_owned(),
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        let endpoint = url::Url::parse(&endpoint).ok().filter(is_plain).ok_or_else(|| {
            misconfigured("/endpoint: https://host:port is wanted, without a user or a query")
        })?;
        let bucket = Self {
            bucket: parsed.host_str().unwrap_or_default().to_owned(),
            prefix: Path::from_url_path(parsed.path())
                .map_err(|error| misconfigured(format!("/url: {error}")))?,
            region,
            endpoint,
            access_key_id: options.required("access_key_id")?.to_owned(),
            secret_access_key: options.secret("secret_access_key")?.ok_or_else(|| {
                misconfigured("/secret_access_key: missing: secret_access_key SECRET[name]")
            })?,
        };
        Rolling::parse(options)?;
        options.finish()?;
        Ok(bucket)
    }

    pub async fn open(
        &self,
        reach: &dyn Reach,
        spec: &SinkSpec,
        secrets: Arc<dyn Secrets>,
    ) -> Result<OpenBucket, Fault> {
        let host = self.endpoint.host_str().unwrap_or_default();
        let port = self.endpoint.port_or_known_default().unwrap_or(443);
        reach.addresses(spec, self.endpoint.scheme(), host, port).await?;
        let (key, key_version) = self.secret_access_key.value(secrets.as_ref(), host).await?;
        let scrubber = Scrubber::default();
        scrubber.learn("secret_access_key", key.as_bytes());
        // The pipeline retries, and tells that it does.
        let once = RetryConfig { max_retries: 0, retry_timeout: EXCHANGE_TIMEOUT, ..RetryConfig::default() };
        let store = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(key.as_str())
            .with_endpoint(self.endpoint.as_str())
            .with_allow_http(self.endpoint.scheme() == "http")
            .with_retry(once)
            .with_http_connector(Connector(Judged {
                client: reach.http_client(spec)?,
                host: host.to_owned(),
            }))
            .build()
            .map_err(|error| shown(&scrubber, misconfigured(format!("/url: {error}"))))?;
        let (prefix, key, host) = (self.prefix.clone(), self.secret_access_key.clone(), host.to_owned());
        Ok(OpenBucket { store, prefix, scrubber, secrets, key, key_version, host })
    }
}

/// An address and nothing else.
fn is_plain(url: &url::Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

impl OpenBucket {
    /// Writes and removes a file.
    pub async fn check(&self) -> Result<(), Fault> {
        let probe = self.prefix.clone().join(".sepal-check");
        within(EXCHANGE_TIMEOUT, async {
            self.store.put(&probe, Bytes::new().into()).await.map_err(|error| self.fault(&error))?;
            self.store.delete(&probe).await.map_err(|error| self.fault(&error))
        })
        .await
    }

    /// Errors: the secret may not be used any more, or is not what the bucket was opened with.
    async fn check_key(&self) -> Result<(), Fault> {
        let (_, version) = self.key.value(self.secrets.as_ref(), &self.host).await?;
        if version == self.key_version {
            return Ok(());
        }
        Err(Fault::new(FaultKind::NotConnected, "the secret access key was changed").with_code("s3.key"))
    }

    fn fault(&self, error: &object_store::Error) -> Fault {
        shown(&self.scrubber, fault(error))
    }
}

#[async_trait]
impl Shelf for OpenBucket {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Fault> {
        self.check_key().await?;
        let path = self.prefix.clone().join(name);
        let seconds = bytes.len() as u64 / LEAST_BYTES_PER_SECOND;
        let limit = EXCHANGE_TIMEOUT + Duration::from_secs(seconds);
        within(limit, async {
            self.store.put(&path, bytes.into()).await.map(drop).map_err(|error| self.fault(&error))
        })
        .await
    }
}

/// Our client for object_store, which would make one of its own.
#[derive(Debug)]
struct Connector(Judged);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// Asks the host that was judged and no other, and hears only so much.
#[derive(Clone, Debug)]
struct Judged {
    client: reqwest::Client,
    host: String,
}

#[async_trait]
impl HttpService for Judged {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().host() != Some(self.host.as_str()) {
            let problem = io::Error::other("a request to a host that is not the endpoint's");
            return Err(HttpError::new(HttpErrorKind::Request, problem));
        }
        let (parts, body) = HttpService::call(&self.client, request).await?.into_parts();
        let mut chunks = body.bytes_stream();
        let mut kept: Vec<u8> = Vec::new();
        while kept.len() < MOST_RESPONSE_BYTES
            && let Some(chunk) = chunks.next().await
        {
            let chunk = chunk?;
            // The rest is never read: an error's first words say enough.
            kept.extend_from_slice(&chunk[..chunk.len().min(MOST_RESPONSE_BYTES - kept.len())]);
        }
        // Cut inside of a character it would be no text, and the status lost with it.
        Ok(HttpResponse::from_parts(parts, String::from_utf8_lossy(&kept).into_owned().into()))
    }
}

fn fault(error: &object_store::Error) -> Fault {
    use object_store::Error;
    let (kind, code) = match error {
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => {
            (FaultKind::Unauthorized, "s3.denied")
        }
        Error::NotFound { .. } | Error::InvalidPath { .. } | Error::NotSupported { .. } => {
            (FaultKind::Misconfigured, "s3.not-found")
        }
        _ => (FaultKind::Transient, "s3.failed"),
    };
    Fault::new(kind, format!("the bucket: {error}")).with_code(code)
}

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<OpenBucket>>();
};
