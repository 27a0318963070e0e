//! Where a request may go by name: `https://hooks.example.com:443`, `https://*.example.com`.
//!
//! Manifests ask for rules, ALLOW HOSTS grants them, [`intersect`] gives what holds. Names are compared as the `url`
//! crate writes them: lower case, punycode, IPv4 in decimal; a trailing dot says nothing.

use std::{fmt, net::IpAddr};

use url::Url;

/// A scheme, a host or the hosts under a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostRule {
    scheme: Scheme,
    host: HostPattern,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// One host, or all below a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Name(String),
    /// `*.example.com`: any number of labels more, at least one.
    Under(String),
    Address(IpAddr),
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub scheme: Scheme,
    pub host: DestinationHost,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationHost {
    Name(String),
    Address(IpAddr),
}

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rule} does not name a host: {why}; write https://hooks.example.com, https://*.example.com or \
     http://127.0.0.1:8080"
)]
pub struct HostRuleError {
    rule: String,
    why: &'static str,
}

impl HostRule {
    /// Parses `scheme://host[:port]`; the host may start with `*.`.
    pub fn parse(text: &str) -> Result<Self, HostRuleError> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(error(text, "it has no scheme"));
        };
        let (under, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let url = parse_url(text, &format!("{scheme}://{rest}"))?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(error(text, "it has a path"));
        }
        let destination = Destination::of(&url).ok_or_else(|| error(text, "it is neither http nor https"))?;
        let host = match (destination.host, under) {
            (DestinationHost::Name(name), false) => HostPattern::Name(name),
            (DestinationHost::Name(name), true) => HostPattern::under(name)
                .ok_or_else(|| error(text, "`*.` needs a domain with a dot after it"))?,
            (DestinationHost::Address(address), false) => HostPattern::Address(address),
            (DestinationHost::Address(_), true) => {
                return Err(error(text, "an address has nothing below it"));
            }
        };
        Ok(Self { scheme: destination.scheme, host, port: destination.port })
    }

    /// The rule that allows just this URL's host, whatever the path: for a capability that is an option's value.
    pub fn of_url(text: &str) -> Result<Self, HostRuleError> {
        let url = parse_url(text, text)?;
        let destination = Destination::of(&url).ok_or_else(|| error(text, "it is neither http nor https"))?;
        let host = match destination.host {
            DestinationHost::Name(name) => HostPattern::Name(name),
            DestinationHost::Address(address) => HostPattern::Address(address),
        };
        Ok(Self { scheme: destination.scheme, host, port: destination.port })
    }

    pub fn matches(&self, destination: &Destination) -> bool {
        self.scheme == destination.scheme
            && self.port == destination.port
            && self.host.matches(&destination.host)
    }

    /// What both allow; `None` if nothing.
    fn intersection(&self, other: &Self) -> Option<Self> {
        let host = (self.scheme == other.scheme && self.port == other.port)
            .then(|| self.host.intersection(&other.host))??;
        Some(Self { scheme: self.scheme, host, port: self.port })
    }
}

/// What a manifest asks for and a grant allows.
pub fn intersect(asked: &[HostRule], granted: &[HostRule]) -> Vec<HostRule> {
    let pairs = asked.iter().flat_map(|asked| granted.iter().map(move |granted| (asked, granted)));
    let mut rules: Vec<HostRule> = pairs.filter_map(|(asked, granted)| asked.intersection(granted)).collect();
    rules.sort();
    rules.dedup();
    rules
}

impl HostPattern {
    /// Parses a host without scheme and port, as a secret's `allowed_hosts` has them.
    pub fn parse(text: &str) -> Result<Self, HostRuleError> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let (under, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        let parsed = url::Host::parse(host).map_err(|_| error(text, "it is not a host name"))?;
        match (DestinationHost::of(parsed).ok_or_else(|| error(text, "it is empty"))?, under) {
            (DestinationHost::Name(name), _) if name.contains('*') => {
                Err(error(text, "`*` stands for the first labels only"))
            }
            (DestinationHost::Name(name), false) => Ok(Self::Name(name)),
            (DestinationHost::Name(name), true) => {
                Self::under(name).ok_or_else(|| error(text, "`*.` needs a domain with a dot after it"))
            }
            (DestinationHost::Address(address), false) => Ok(Self::Address(address)),
            (DestinationHost::Address(_), true) => Err(error(text, "an address has nothing below it")),
        }
    }

    /// Whether a secret's `allowed_hosts` have this one. What cannot be read allows nothing.
    pub(crate) fn any_matches(allowed: &[String], host: &DestinationHost) -> bool {
        allowed.iter().any(|text| Self::parse(text).is_ok_and(|pattern| pattern.matches(host)))
    }

    /// `*.com` would be everybody.
    fn under(name: String) -> Option<Self> {
        name.contains('.').then_some(Self::Under(name))
    }

    pub fn matches(&self, host: &DestinationHost) -> bool {
        match (self, host) {
            (Self::Name(name), DestinationHost::Name(host)) => name == host,
            (Self::Under(suffix), DestinationHost::Name(host)) => is_below(host, suffix),
            (Self::Address(address), DestinationHost::Address(host)) => address == host,
            (Self::Name(_) | Self::Under(_), DestinationHost::Address(_))
            | (Self::Address(_), DestinationHost::Name(_)) => false,
        }
    }

    fn intersection(&self, other: &Self) -> Option<Self> {
        let narrower = match (self, other) {
            (Self::Name(name), Self::Under(suffix)) if is_below(name, suffix) => self,
            (Self::Under(suffix), Self::Name(name)) if is_below(name, suffix) => other,
            (Self::Under(long), Self::Under(short)) if is_below(long, short) => self,
            (Self::Under(short), Self::Under(long)) if is_below(long, short) => other,
            (one, same) if one == same => self,
            _ => return None,
        };
        Some(narrower.clone())
    }
}

impl Destination {
    /// `None` unless the URL is http or https with a host.
    pub fn of(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let host = DestinationHost::of(url.host()?.to_owned())?;
        Some(Self { scheme, host, port: url.port_or_known_default()? })
    }
}

impl DestinationHost {
    /// As it stands in a URL.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        url::Host::parse(text).ok().and_then(Self::of)
    }

    pub(super) fn of(host: url::Host<String>) -> Option<Self> {
        match host {
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
                // "." and "a..": a name that resolvers read in ways of their own.
                (!name.is_empty() && !name.split('.').any(str::is_empty)).then_some(Self::Name(name))
            }
            url::Host::Ipv4(address) => Some(Self::Address(IpAddr::V4(address))),
            url::Host::Ipv6(address) => Some(Self::Address(IpAddr::V6(address).to_canonical())),
        }
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn parse_url(text: &str, url: &str) -> Result<Url, HostRuleError> {
    let parsed = Url::parse(url).map_err(|_| error(text, "it is not a URL"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(error(text, "it has a user name or a password"));
    }
    if parsed.host_str().is_some_and(|host| host.contains('*')) {
        return Err(error(text, "`*` stands for the first labels only"));
    }
    Ok(parsed)
}

/// What may hold a password is not repeated.
fn error(rule: &str, why: &'static str) -> HostRuleError {
    let rule = match rule.contains(['@', '?', '#']) {
        true => "the rule".to_owned(),
        false => format!("`{}`", rule.chars().take(120).collect::<String>()),
    };
    HostRuleError { rule, why }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = match self.scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Under(suffix) => write!(f, "*.{suffix}"),
            Self::Address(address) => host_address(*address, f),
        }
    }
}

impl fmt::Display for DestinationHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => host_address(*address, f),
        }
    }
}

fn host_address(address: IpAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match address {
        IpAddr::V4(address) => write!(f, "{address}"),
        IpAddr::V6(address) => write!(f, "[{address}]"),
    }
}
