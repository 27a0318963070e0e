//! Replacing a plugin in a running server: `ALTER PLUGIN … UPDATE FROM`, over the connection that libpq's variables
//! name.

use std::{env, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{Client, Config, NoTls, Socket, config::SslMode, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::cli::failure::Failure;

/// Gives the plugin `name` new bytes. `signature`: what `sepal plugin sign` wrote.
pub async fn replace(name: &str, component: &[u8], signature: Option<&[u8]>) -> Result<(), Failure> {
    let client = connect().await?;
    let name = quoted(name);
    match signature {
        Some(signature) => {
            let sql = format!("ALTER PLUGIN {name} UPDATE FROM $1 SIGNATURE $2");
            client.execute(&sql, &[&component, &signature]).await?;
        }
        None => {
            client.execute(&format!("ALTER PLUGIN {name} UPDATE FROM $1"), &[&component]).await?;
        }
    }
    Ok(())
}

/// An identifier that says what it says.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn connect() -> Result<Client, Failure> {
    let mut config = Config::new();
    config.host(variable("PGHOST")?).user(variable("PGUSER")?).application_name("sepal plugin watch");
    let port = env::var("PGPORT").unwrap_or_else(|_| "5433".to_owned());
    config.port(port.parse().map_err(|_| Failure::usage(format!("PGPORT is {port:?}, which is no port")))?);
    config.dbname(env::var("PGDATABASE").unwrap_or_else(|_| "default".to_owned()));
    if let Ok(password) = env::var("PGPASSWORD") {
        config.password(password);
    }
    if env::var("PGSSLMODE").is_ok_and(|mode| mode == "disable") {
        config.ssl_mode(SslMode::Disable);
        return open(&config, NoTls).await;
    }
    config.ssl_mode(SslMode::Require);
    open(&config, MakeRustlsConnect::new(tls(Path::new(&variable("PGSSLROOTCERT")?))?)).await
}

async fn open<T>(config: &Config, tls: T) -> Result<Client, Failure>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection of a watch ended");
        }
    });
    Ok(client)
}

fn variable(name: &str) -> Result<String, Failure> {
    env::var(name).map_err(|_| {
        Failure::usage(format!("{name} is not set: source the file that `sepal dev --env-file` wrote"))
    })
}

fn tls(authority: &Path) -> Result<ClientConfig, Failure> {
    let wrong = |error: String| Failure::failed(format!("{}: {error}", authority.display()));
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_file(authority).map_err(|error| wrong(format!("{error:?}")))?;
    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
