//! Sinks that are part of the process: destinations whose protocols a WASM guest cannot speak.
//!
//! ```text
//! postgres       upserts and deletes in a table of another Postgres; `delivery = 'transactional'` keeps the position there
//! object_store   files in an S3-compatible bucket, NDJSON or Parquet
//! file           the same under a directory of the tenant's in one that the operator named; without that nobody has it
//! ```
//! `runtime` opens them. They reach the network only through [`Reach`], which judges names and addresses as it does
//! for plugins, and hear and wait for destinations within `bounds`.

mod bounds;
mod options;
mod postgres;
mod rolled;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use sepal_database::connector::{Fault, FaultKind, Secrets, Sink, SinkSpec};

use options::Options;

/// The names after `USING`.
pub const NAMES: &[&str] = &["file", "object_store", "postgres"];

/// What the ids of batches of dead letters begin with: their positions come from before the pipeline's.
const REPLAY: &str = "dlq-";

/// The network as a sink may use it.
#[async_trait]
pub trait Reach: fmt::Debug + Send + Sync {
    /// The addresses of a host that `spec` may connect to, each judged.
    ///
    /// Errors: [`FaultKind::Misconfigured`] for a host that ALLOW HOSTS does not name or an address that the operator
    /// does not allow, [`FaultKind::Transient`] when the name does not resolve.
    async fn addresses(
        &self,
        spec: &SinkSpec,
        scheme: &str,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Fault>;

    /// An HTTP client that resolves names and judges addresses as [`Self::addresses`] does and follows no redirect.
    fn http_client(&self, spec: &SinkSpec) -> Result<reqwest::Client, Fault>;

    /// What TLS to a destination trusts.
    fn tls(&self) -> Arc<rustls::ClientConfig>;
}

/// The native sinks of a process.
#[derive(Debug)]
pub struct Native {
    reach: Arc<dyn Reach>,
    /// Where the sink `file` may write.
    file_root: Option<PathBuf>,
}

impl Native {
    pub fn new(reach: Arc<dyn Reach>, file_root: Option<PathBuf>) -> Self {
        Self { reach, file_root }
    }

    /// Checks options without reaching out.
    pub fn validate(&self, spec: &SinkSpec) -> Result<(), Fault> {
        let options = Options::new(spec);
        match spec.connector.as_str() {
            "postgres" => postgres::Target::parse(&options).map(drop),
            "object_store" => rolled::Bucket::parse(&options).map(drop),
            "file" => self.directory(spec).map(drop),
            other => Err(unknown(other)),
        }
    }

    /// Validates and asks the destination.
    pub async fn check(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<(), Fault> {
        match spec.connector.as_str() {
            "postgres" => postgres::PostgresSink::new(self.reach.clone(), spec, secrets)?.check().await,
            "object_store" => self.bucket(spec, secrets).await?.check().await,
            "file" => self.directory(spec)?.check().await,
            other => Err(unknown(other)),
        }
    }

    pub async fn open(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<Box<dyn Sink>, Fault> {
        Ok(match spec.connector.as_str() {
            "postgres" => Box::new(postgres::PostgresSink::new(self.reach.clone(), spec, secrets)?),
            "object_store" => {
                let bucket = self.bucket(spec, secrets).await?;
                Box::new(rolled::RolledSink::new(spec, Box::new(bucket))?)
            }
            "file" => {
                let directory = self.directory(spec)?;
                Box::new(rolled::RolledSink::new(spec, Box::new(directory))?)
            }
            other => return Err(unknown(other)),
        })
    }

    fn directory(&self, spec: &SinkSpec) -> Result<rolled::Directory, Fault> {
        rolled::Directory::parse(&Options::new(spec), self.file_root.as_deref(), spec.tenant)
    }

    async fn bucket(&self, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<rolled::OpenBucket, Fault> {
        let bucket = rolled::Bucket::parse(&Options::new(spec))?;
        bucket.open(self.reach.as_ref(), spec, secrets).await
    }
}

fn unknown(connector: &str) -> Fault {
    Fault::new(
        FaultKind::Misconfigured,
        format!("there is no sink \"{connector}\": use {}, or USING PLUGIN name", NAMES.join(", ")),
    )
}

/// A configuration that cannot work.
fn misconfigured(message: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Misconfigured, message)
}

#[cfg(test)]
pub(crate) mod tests;
