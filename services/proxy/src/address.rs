//! Clients by their addresses: how many connections each has, and how fast its requests come. What is kept of each is a few
//! bytes, for as long as it matters, and of so many at most.

mod census;
mod rates;

use std::net::IpAddr;

pub(crate) use self::{
    census::{Census, Entry},
    rates::Rates,
};

/// Whom a limit counts as one: an IPv4 address, or the 64 bits of an IPv6 network, of which one client has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(u64, bool);

impl Client {
    /// The one at this address.
    pub(crate) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_bits().into(), false),
            IpAddr::V6(address) => {
                let network = (address.to_bits() >> 64) as u64; // the upper half, which fits
                Self(network, true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(address: &str) -> Client {
        Client::at(address.parse().unwrap())
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_what_it_maps() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.7"), client("192.0.2.7"));
        assert_ne!(client("192.0.2.7"), client("192.0.2.8"));
        assert_ne!(client("::"), client("0.0.0.0"));
    }
}
