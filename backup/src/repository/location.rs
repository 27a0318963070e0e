//! A repository's address: a directory, or `s3://bucket/prefix?endpoint=…&region=…`. Never a secret: what stands in a
//! command line or in `sepal config` may be read by others.

use std::{fmt, path::PathBuf, str::FromStr};

use sepal_database::{Error, SqlState};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Directory(PathBuf),
    Bucket(BucketLocation),
}

/// A bucket of an S3-compatible store, and what its objects' names begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketLocation {
    pub bucket: String,
    /// Without a slash at either end.
    pub prefix: String,
    /// `None`: as the environment says, else Amazon's.
    pub endpoint: Option<String>,
    pub region: Option<String>,
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("file://") {
            return Self::directory(path);
        }
        if !text.starts_with("s3://") {
            return match text.split_once("://") {
                Some((scheme, _)) => Err(wrong(text, &format!("{scheme}:// is not known"))),
                None => Self::directory(text),
            };
        }
        let url = url::Url::parse(text).map_err(|error| wrong(text, &error.to_string()))?;
        let bucket = url.host_str().unwrap_or_default().to_owned();
        if bucket.is_empty() {
            return Err(wrong(text, "it names no bucket"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("s3://…", "credentials do not belong into it"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
        if !url.path().chars().all(plain) {
            return Err(wrong(text, "its prefix may have letters, digits, '/', '.', '_' and '-'"));
        }
        let mut location =
            BucketLocation { bucket, prefix: trimmed(url.path()), endpoint: None, region: None };
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => location.endpoint = Some(endpoint(text, &value)?),
                "region" => location.region = Some(value.into_owned()),
                other => return Err(wrong(text, &format!("{other} is no option of it"))),
            }
        }
        Ok(Self::Bucket(location))
    }
}

impl Location {
    fn directory(path: &str) -> Result<Self, Error> {
        if path.is_empty() {
            return Err(wrong(path, "it is empty"));
        }
        let path = std::path::absolute(path).map_err(|error| wrong(path, &error.to_string()))?;
        Ok(Self::Directory(path))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket(location) => write!(f, "s3://{}/{}", location.bucket, location.prefix),
        }
    }
}

fn trimmed(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// Session tokens, ids and times may go over TLS, or stay on this machine.
fn endpoint(text: &str, value: &str) -> Result<String, Error> {
    let unfit = || wrong(text, &format!("endpoint={value} is no https:// address"));
    let url = url::Url::parse(value).map_err(|_| unfit())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("s3://…", "credentials do not belong into its endpoint"));
    }
    let here = match url.host().ok_or_else(unfit)? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => Ok(value.to_owned()),
        "http" if here => Ok(value.to_owned()),
        "http" => Err(wrong(text, "its endpoint needs https (http is taken for this machine only)")),
        _ => Err(unfit()),
    }
}

fn wrong(text: &str, why: &str) -> Error {
    Error::new(SqlState::InvalidParameterValue, format!("\"{text}\" is no backup repository: {why}"))
        .with_hint(
            "Name a directory (/var/backups/sepal) or a bucket (s3://bucket/prefix?region=eu-central-1, with \
             endpoint=https://host for one that is not Amazon's). Credentials come from AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or from ~/.aws/credentials.",
        )
}
