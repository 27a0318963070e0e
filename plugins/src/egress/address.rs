//! Which IP addresses a plugin's request may go to: public ones, and what the operator named.
//!
//! Judged is the address that a connection then goes to, in every spelling: an IPv6 address that carries an IPv4
//! address is as private as what it carries. The lists are the IANA special-purpose registries (RFC 6890 and its
//! updates) and two addresses by which clouds serve their metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Public addresses and the operator's exceptions.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    private_networks: Vec<IpNet>,
}

impl AddressPolicy {
    /// `private_networks`: reachable although they are not public.
    pub fn new(private_networks: Vec<IpNet>) -> Self {
        Self { private_networks }
    }

    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.private_networks.iter().any(|network| network.contains(&address))
    }
}

/// Networks as an operator writes them: `10.0.0.0/8, ::1/128`. An address alone is a network of one.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let alone = word.parse::<IpAddr>().map(IpNet::from);
            word.parse::<IpNet>().or(alone).map_err(|_| format!("\"{word}\" is no network: write 10.0.0.0/8"))
        })
        .collect()
}

/// Whether the address is reachable over the internet and belongs to nobody special.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]                  // this network, private, loopback
            | [100, 64..=127, ..]           // carrier-grade NAT; Alibaba's metadata
            | [168, 63, 129, 16]            // Azure's metadata
            | [169, 254, ..]                // link-local; most clouds' metadata
            | [172, 16..=31, ..]            // private
            | [192, 0, 0 | 2, _]            // protocol assignments, Oracle's metadata; documentation
            | [192, 88, 99, _]              // 6to4 relays, withdrawn
            | [192, 168, ..]                // private
            | [198, 18 | 19, ..]            // benchmarks
            | [198, 51, 100, _]             // documentation
            | [203, 0, 113, _]              // documentation
            | [224..=255, ..] // multicast, reserved, broadcast
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // IPv4-mapped, and NAT64 by which a network without IPv4 reaches it.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(carried(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(carried(high, low)),
        // Protocol assignments, Teredo among them; documentation; the old 6bone.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3ffe, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // ISATAP carries an IPv4 address in the interface's part.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => is_public_v4(carried(high, low)),
        // The only block that is given out. Loopback, IPv4-compatible, ULA, link-local and multicast are outside.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

fn carried(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}
