//! The network for native sinks, under the rules that hold for plugins: ALLOW HOSTS, judged addresses, no redirects.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use reqwest::Client;
use rustls::{ClientConfig, client::Resumption};
use sepal_database::connector::{Fault, FaultKind, SinkSpec};

use super::{Destination, DestinationHost, Egress, HostRule, Scheme, client};
use crate::sinks::Reach;

/// Where Postgres listens unless a rule says otherwise.
const POSTGRES_PORT: u16 = 5432;

#[async_trait]
impl Reach for Egress {
    async fn addresses(
        &self,
        spec: &SinkSpec,
        scheme: &str,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Fault> {
        let destination = destination(scheme, host, port)?;
        if !allowed(spec, scheme, &destination) {
            let rule = format!("{scheme}://{host}:{port}");
            return Err(refused(format!("{rule} is not among the sink's hosts: ALLOW HOSTS ('{rule}')")));
        }
        let addresses = match &destination.host {
            DestinationHost::Address(address) if self.shared.policy.permits(*address) => vec![*address],
            DestinationHost::Address(address) => {
                return Err(refused(format!(
                    "{address} is not a public address: the operator may allow it with private_networks"
                )));
            }
            DestinationHost::Name(name) => {
                let found = client::judged(&*self.shared.judge.resolver, &self.shared.policy, name).await;
                found.map_err(|error| client::fault(error.as_ref()))?.map(|address| address.ip()).collect()
            }
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn http_client(&self, spec: &SinkSpec) -> Result<Client, Fault> {
        self.shared
            .client(spec.tenant)
            .map_err(|_| Fault::new(FaultKind::Internal, "the HTTP client cannot be set up"))
    }

    fn tls(&self) -> Arc<ClientConfig> {
        let mut config = self.shared.tls.clone();
        config.alpn_protocols.clear();
        // A clone shares the store of sessions, and one that another tenant began is not this one's to resume.
        config.resumption = Resumption::default();
        Arc::new(config)
    }
}

fn destination(scheme: &str, host: &str, port: u16) -> Result<Destination, Fault> {
    let host = DestinationHost::parse(host).ok_or_else(|| refused(format!("\"{host}\" is not a host")))?;
    // Rules of another protocol are turned into this one's before they are compared.
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Destination { scheme, host, port })
}

fn allowed(spec: &SinkSpec, scheme: &str, destination: &Destination) -> bool {
    let rules = spec.allow_hosts.iter().filter_map(|text| match (scheme, text.split_once("://")?) {
        ("http" | "https", (of, _)) if of == scheme => HostRule::parse(text).ok(),
        ("postgres", ("postgres" | "postgresql", rest)) => {
            let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let rest = if has_port { rest.to_owned() } else { format!("{rest}:{POSTGRES_PORT}") };
            HostRule::parse(&format!("http://{rest}")).ok()
        }
        _ => None,
    });
    rules.into_iter().any(|rule| rule.matches(destination))
}

fn refused(message: String) -> Fault {
    Fault::new(FaultKind::Misconfigured, message).with_code("egress.denied")
}
