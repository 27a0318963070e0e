//! Objects in a bucket of an S3-compatible store, through object_store.
//!
//! An object appears when its upload is complete, and is durable then: that is the store's promise. What is larger
//! than a part goes up in parts. Requests that fail for a moment are repeated by object_store; what fails longer is
//! the caller's to repeat.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector},
    path::Path,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use sepal_database::{Error, Result, SqlState};

use super::{Listed, Shelf, Upload, credentials, failed, location::BucketLocation};

/// Parts of a large object. S3 takes 10,000 of them, and none but the last below 5 MiB.
const PART_BYTES: usize = 8 << 20;
const MOST_PARTS: u64 = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte in either direction.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one request is repeated.
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);

/// See the module.
pub(super) struct BucketShelf {
    store: AmazonS3,
    prefix: String,
}

impl fmt::Debug for BucketShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketShelf").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl BucketShelf {
    pub(super) fn open(location: &BucketLocation) -> Result<Self> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&location.bucket);
        if let Some(found) = credentials::from_files()? {
            builder = found.apply(builder);
        }
        if let Some(region) = &location.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &location.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let retry = RetryConfig { max_retries: 8, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let store = builder
            .with_retry(retry)
            .with_http_connector(Connector(client()?))
            .build()
            .map_err(|error| failed("use", &format!("bucket {}", location.bucket), &error))?;
        Ok(Self { store, prefix: location.prefix.clone() })
    }

    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    /// The name within the repository.
    fn name(&self, path: &Path) -> Option<String> {
        let rest = path.as_ref().strip_prefix(&self.prefix)?;
        Some(rest.trim_start_matches('/').to_owned())
    }
}

/// An upload that gathers parts; what fits into one is one request.
struct BucketUpload {
    store: AmazonS3,
    path: Path,
    part_bytes: usize,
    gathered: BytesMut,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl BucketUpload {
    async fn send_parts(&mut self, all: bool) -> Result<()> {
        while self.gathered.len() >= self.part_bytes || (all && !self.gathered.is_empty()) {
            let take = self.gathered.len().min(self.part_bytes);
            let part = self.gathered.split_to(take).freeze();
            if self.parts.is_none() {
                self.parts =
                    Some(self.store.put_multipart(&self.path).await.map_err(|error| self.wrong(&error))?);
            }
            if let Some(parts) = &mut self.parts {
                parts.put_part(part.into()).await.map_err(|error| wrong("write", &self.path, &error))?;
            }
        }
        Ok(())
    }

    fn wrong(&self, error: &object_store::Error) -> Error {
        wrong("write", &self.path, error)
    }
}

#[async_trait]
impl Upload for BucketUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.gathered.extend_from_slice(&bytes);
        // One part stays back: a small object then needs no parts at all.
        if self.gathered.len() > self.part_bytes { self.send_parts(false).await } else { Ok(()) }
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        if self.parts.is_none() && self.gathered.len() <= self.part_bytes {
            let bytes = self.gathered.split().freeze();
            return self
                .store
                .put(&self.path, bytes.into())
                .await
                .map(drop)
                .map_err(|error| self.wrong(&error));
        }
        self.send_parts(true).await?;
        match &mut self.parts {
            Some(parts) => {
                parts.complete().await.map(drop).map_err(|error| wrong("write", &self.path, &error))
            }
            None => Ok(()),
        }
    }

    async fn abandon(mut self: Box<Self>) {
        if let Some(parts) = &mut self.parts
            && let Err(error) = parts.abort().await
        {
            tracing::warn!(%error, object = %self.path, "parts of an unfinished upload stay in the bucket");
        }
    }
}

#[async_trait]
impl Shelf for BucketShelf {
    async fn begin(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload>> {
        let least = usize::try_from(bytes.div_ceil(MOST_PARTS)).unwrap_or(usize::MAX);
        Ok(Box::new(BucketUpload {
            store: self.store.clone(),
            path: self.path(name),
            part_bytes: PART_BYTES.max(least),
            gathered: BytesMut::new(),
            parts: None,
        }))
    }

    async fn open(&self, name: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        let path = self.path(name);
        match self.store.get(&path).await {
            Ok(found) => {
                let chunks = found.into_stream().map_err(move |error| wrong("read", &path, &error));
                Ok(Some(chunks.boxed()))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(wrong("read", &path, &error)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let path = self.path(folder.trim_end_matches('/'));
        let mut listing = self.store.list(Some(&path));
        let mut found = Vec::new();
        while let Some(object) = listing.next().await {
            let object = object.map_err(|error| wrong("list", &path, &error))?;
            if let Some(name) = self.name(&object.location) {
                let modified = object.last_modified.timestamp();
                found.push(Listed { name, bytes: object.size, modified });
            }
        }
        Ok(found)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(wrong("remove", &path, &error)),
        }
    }
}

/// What went wrong at the bucket, and what to look at.
fn wrong(action: &str, path: &Path, error: &object_store::Error) -> Error {
    let failed = failed(action, path.as_ref(), error);
    match error {
        object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => failed
            .with_hint("The bucket refuses these credentials: see AWS_ACCESS_KEY_ID and ~/.aws/credentials."),
        _ => failed,
    }
}

/// Our client for object_store, whose own would come without roots.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// Trusts the public authorities, and those of `AWS_CA_BUNDLE`, as Amazon's own tools do.
fn client() -> Result<reqwest::Client> {
    let unusable = |why: String| Error::new(SqlState::InvalidParameterValue, why);
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let show = std::path::Path::new(&path).display().to_string();
        let read = CertificateDer::pem_file_iter(&path);
        let certificates = read.map_err(|error| unusable(format!("AWS_CA_BUNDLE {show}: {error}")))?;
        for certificate in certificates {
            let certificate =
                certificate.map_err(|error| unusable(format!("AWS_CA_BUNDLE {show}: {error}")))?;
            roots.add(certificate).map_err(|error| unusable(format!("AWS_CA_BUNDLE {show}: {error}")))?;
        }
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::bug(format!("TLS versions: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .user_agent(concat!("sepal/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::bug(format!("the HTTP client: {error}")))
}
