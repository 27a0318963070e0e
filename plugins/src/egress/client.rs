//! The HTTP client: one per tenant, so that no connection and no TLS session serves two.
//!
//! Names are resolved here and every address judged; the connection goes to an address that was, so a name that
//! changes its mind (DNS rebinding) changes nothing. A name with one private address among public ones is refused
//! whole. No redirects, no proxies, no cookies, no decompression, no retries: all of that is the guest's or the
//! engine's business.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{
    Client, Method, Url,
    dns::{Addrs, Name, Resolving},
    header::{ACCEPT_ENCODING, HeaderMap, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::aws_lc_rs, pki_types::CertificateDer};
use sepal_database::connector::{Fault, FaultKind};

use super::{EgressError, address::AddressPolicy, scrub::ANCHOR_BYTES};
use crate::call::{HttpError, HttpResponse};

/// Headers of a response beyond this are an attack.
const MAX_RESPONSE_HEADER_BYTES: usize = 64 << 10;
const MAX_IDLE_PER_HOST: usize = 4;
const IDLE: Duration = Duration::from_secs(30);

/// Looks up addresses; tests bring their own.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's.
#[derive(Debug)]
pub(super) struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Stands between reqwest and the resolver.
#[derive(Debug)]
pub(super) struct Judge {
    pub resolver: Arc<dyn Resolve>,
    pub policy: Arc<AddressPolicy>,
}

impl reqwest::dns::Resolve for Judge {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, policy) = (Arc::clone(&self.resolver), Arc::clone(&self.policy));
        Box::pin(async move { judged(&*resolver, &policy, name.as_str()).await })
    }
}

pub(super) async fn judged(
    resolver: &dyn Resolve,
    policy: &AddressPolicy,
    host: &str,
) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let addresses = resolver.resolve(host).await.map_err(|_| Refusal::Unknown)?;
    if addresses.is_empty() {
        return Err(Refusal::Unknown.into());
    }
    if let Some(address) = addresses.iter().find(|address| !policy.permits(**address)) {
        // For the operator only: a tenant learns nothing of what stands in the network.
        tracing::info!(host, %address, "a plugin's request to an address that is not public is refused");
        return Err(Refusal::Private { host: host.to_owned() }.into());
    }
    Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))))
}

/// The same for a native sink.
pub(super) fn fault(error: &(dyn Error + Send + Sync + 'static)) -> Fault {
    let kind = match error.downcast_ref::<Refusal>() {
        Some(Refusal::Private { .. }) => FaultKind::Misconfigured,
        Some(Refusal::Unknown) | None => FaultKind::Transient,
    };
    Fault::new(kind, error.to_string()).with_code("egress.name")
}

/// Why a name was not connected to.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the host's name cannot be resolved")]
    Unknown,
    #[error("{host} has an address that is not public")]
    Private { host: String },
}

/// What every tenant's client starts from.
pub(super) fn tls(extra_roots: &[CertificateDer<'static>]) -> Result<ClientConfig, EgressError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in extra_roots {
        roots.add(root.clone()).map_err(EgressError::Root)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(EgressError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// One tenant's.
pub(super) fn build(
    tls: &ClientConfig,
    judge: Arc<Judge>,
    connect_timeout: Duration,
) -> reqwest::Result<Client> {
    let mut tls = tls.clone();
    // A clone shares the store of sessions.
    tls.resumption = Resumption::default();
    Client::builder()
        .use_preconfigured_tls(tls)
        .dns_resolver(judge)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .referer(false)
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("sepal/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// A request that may go out, with its secrets in place.
pub(super) struct Outgoing {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Vec<u8>>,
    pub timeout: Duration,
    pub response_bytes: usize,
}

/// The response's body goes on past `response_bytes` as far as is needed to see a secret that begins before: whoever
/// takes secrets out cuts it afterwards.
pub(super) async fn send(client: &Client, outgoing: Outgoing) -> Result<HttpResponse, HttpError> {
    let timeout = outgoing.timeout;
    tokio::time::timeout(timeout, exchange(client, outgoing)).await.unwrap_or(Err(HttpError::Timeout))
}

async fn exchange(client: &Client, outgoing: Outgoing) -> Result<HttpResponse, HttpError> {
    let mut request = reqwest::Request::new(outgoing.method, outgoing.url);
    *request.headers_mut() = outgoing.headers;
    // Without it a server may choose, and in what is compressed no secret is found.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    *request.body_mut() = outgoing.body.map(Into::into);
    let mut response = client.execute(request).await.map_err(|error| classify(&error))?;
    let headers = read_headers(response.headers())?;
    let most = outgoing.response_bytes.saturating_add(ANCHOR_BYTES);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        let room = most - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            // The rest is never read: dropping the response closes its connection.
            break;
        }
    }
    let truncated = body.len() > outgoing.response_bytes;
    Ok(HttpResponse { status: response.status().as_u16(), headers, body, truncated })
}

fn read_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, HttpError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_RESPONSE_HEADER_BYTES {
        return Err(HttpError::Protocol(format!(
            "the response's headers have {bytes} bytes, more than {MAX_RESPONSE_HEADER_BYTES}"
        )));
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Ok(headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect())
}

/// Says which of the interface's errors it is. No URL gets into the message: its query may hold what is nobody's.
fn classify(error: &reqwest::Error) -> HttpError {
    let mut innermost = None;
    for cause in causes(error) {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return match refusal {
                Refusal::Unknown => HttpError::Dns,
                Refusal::Private { .. } => HttpError::Denied(refusal.to_string()),
            };
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return HttpError::Tls(tls.to_string());
        }
        innermost = Some(cause);
    }
    if error.is_timeout() {
        return HttpError::Timeout;
    }
    if error.is_connect() {
        return HttpError::Connect;
    }
    HttpError::Protocol(innermost.map_or_else(|| "the exchange failed".to_owned(), ToString::to_string))
}

/// The causes below a reqwest error; an `io::Error` made from another error shows that one only if asked.
fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let below = |cause: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let cause: &'a (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    };
    std::iter::successors(error.source(), below)
}
