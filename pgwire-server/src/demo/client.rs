//! The demo's own clients: tokio-postgres over TLS, as an application would connect.

use std::{error::Error, net::SocketAddr, sync::Arc};

use bytes::{BufMut, BytesMut};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{
    Client,
    config::{ChannelBinding, Config, SslMode},
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{admin::NewKey, cli::failure::Failure};

/// Connects with a key: TLS 1.3 checked against the server's authority, SCRAM-SHA-256-PLUS.
pub async fn connect(address: SocketAddr, key: &NewKey) -> Result<Client, Failure> {
    let authority = key.endpoint.authority.as_ref().ok_or_else(|| {
        Failure::configuration("the demo makes its own certificate: leave out --tls-cert and --tls-key")
    })?;
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority)
        .map_err(|error| Failure::failed(format!("{}: {error:?}", authority.display())))?;
    roots.add(certificate).map_err(|error| Failure::failed(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = Config::new();
    config
        .host(&key.endpoint.host)
        .hostaddr(address.ip())
        .port(address.port())
        .user(&key.key.id)
        .password(key.token.as_bytes())
        .dbname("default")
        .application_name("sepal demo")
        .ssl_mode(SslMode::Require)
        .channel_binding(ChannelBinding::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a demo connection ended");
        }
    });
    Ok(client)
}

/// A `vector` parameter in pgvector's binary form: dimensions (u16), unused (u16), big-endian floats.
#[derive(Debug)]
pub struct Vector<'a>(pub &'a [f32]);

impl Vector<'_> {
    /// Appends the binary form.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_u16(u16::try_from(self.0.len()).unwrap_or(u16::MAX));
        out.put_u16(0);
        for value in self.0 {
            out.put_f32(*value);
        }
    }

    /// Bytes of the binary form.
    pub fn len_bytes(&self) -> usize {
        4 + 4 * self.0.len()
    }
}

impl ToSql for Vector<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.put(out);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }

    to_sql_checked!();
}
