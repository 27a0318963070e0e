//! Files in an S3-compatible bucket. An upload appears when it is complete, so nothing has to be renamed.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    ClientOptions, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector},
    path::Path,
};
use sepal_database::connector::{Fault, FaultKind, Secrets, SinkSpec};

use super::{
    super::{
        Reach, misconfigured,
        options::{Options, SecretOption},
    },
    Rolling, Shelf,
};

/// What the options say.
#[derive(Clone, Debug)]
pub(in super::super) struct Bucket {
    bucket: String,
    prefix: Path,
    region: String,
    /// `None`: Amazon's.
    endpoint: Option<String>,
    access_key_id: String,
    secret_access_key: SecretOption,
}

/// A bucket with its credentials.
pub(in super::super) struct OpenBucket {
    store: AmazonS3,
    prefix: Path,
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
        let endpoint = options.text("endpoint")?.map(str::to_owned);
        if let Some(endpoint) = &endpoint
            && !url::Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            return Err(misconfigured("/endpoint: https://host:port is wanted"));
        }
        let bucket = Self {
            bucket: parsed.host_str().unwrap_or_default().to_owned(),
            prefix: Path::from_url_path(parsed.path())
                .map_err(|error| misconfigured(format!("/url: {error}")))?,
            region: options.text("region")?.unwrap_or("us-east-1").to_owned(),
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
        secrets: &dyn Secrets,
    ) -> Result<OpenBucket, Fault> {
        let key = self.secret_access_key.text(secrets).await?;
        // The pipeline retries, and tells that it does.
        let once =
            RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(key.as_str())
            .with_retry(once)
            .with_http_connector(Connector(reach.http_client(spec)?));
        let address = match &self.endpoint {
            Some(endpoint) => {
                builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
                endpoint.clone()
            }
            None => format!("https://s3.{}.amazonaws.com", self.region),
        };
        let judged =
            url::Url::parse(&address).map_err(|error| misconfigured(format!("/endpoint: {error}")))?;
        let host = judged.host_str().unwrap_or_default();
        reach.addresses(spec, judged.scheme(), host, judged.port_or_known_default().unwrap_or(443)).await?;
        let store = builder.build().map_err(|error| misconfigured(format!("/url: {error}")))?;
        Ok(OpenBucket { store, prefix: self.prefix.clone() })
    }
}

impl OpenBucket {
    /// Writes and removes a file.
    pub async fn check(&self) -> Result<(), Fault> {
        let probe = self.prefix.clone().join(".sepal-check");
        self.store.put(&probe, Bytes::new().into()).await.map_err(|error| fault(&error))?;
        self.store.delete(&probe).await.map_err(|error| fault(&error))
    }
}

#[async_trait]
impl Shelf for OpenBucket {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Fault> {
        let path = self.prefix.clone().join(name);
        self.store.put(&path, bytes.into()).await.map(drop).map_err(|error| fault(&error))
    }
}

/// Our client for object_store, which would make one of its own.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
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
