//! What the machine's network is like, and the few switches of it that are set: of the network that the calling thread is in.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrIn};

/// Where resolvers are named; the second says whom a stub on this machine asks itself.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// A route that is up, and one that leads nowhere.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// The machine's own addresses, with the interfaces that have them.
pub(super) fn addresses() -> io::Result<Vec<(String, Ipv4Addr)>> {
    let of = |address: &nix::ifaddrs::InterfaceAddress| {
        address.address.as_ref()?.as_sockaddr_in().map(SockaddrIn::ip)
    };
    Ok(getifaddrs()?.filter_map(|found| Some((found.interface_name.clone(), of(&found)?))).collect())
}

/// The interfaces of the default routes.
pub(super) fn uplinks() -> io::Result<Vec<String>> {
    fs::read_to_string("/proc/thread-self/net/route").map(|table| default_routes(&table))
}

/// Whom boxes may ask for names.
pub(super) fn resolver(own: &[(String, Ipv4Addr)]) -> Option<Ipv4Addr> {
    let texts = RESOLVERS.map(|path| fs::read_to_string(path).unwrap_or_default());
    texts.iter().find_map(|text| first_resolver(text, own))
}

/// Whether the machine is a router, whatever we do.
pub(super) fn routes() -> bool {
    is_on("/proc/sys/net/ipv4/ip_forward")
}

/// Whether what comes in at an interface may be forwarded.
pub(super) fn forwards(interface: &str) -> bool {
    is_on(&forwarding(interface))
}

/// Has it be so, or not. An interface that is gone forwards nothing.
pub(super) fn forward(interface: &str, on: bool) -> io::Result<()> {
    set(&forwarding(interface), if on { "1" } else { "0" })
}

/// Has an interface tell whose addresses are its own, and of no others that the machine has: frames of a microVM may ask for any.
pub(super) fn own_addresses_only(interface: &str) -> io::Result<()> {
    set(&format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore"), "1")
}

/// Takes the addresses of IPv6 from an interface, where the machine knows any.
pub(super) fn no_ipv6(interface: &str) -> io::Result<()> {
    set(&format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1")
}

fn forwarding(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/forwarding")
}

fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}

fn set(path: &str, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

fn default_routes(table: &str) -> Vec<String> {
    let mut found: Vec<String> = table.lines().skip(1).filter_map(default_route).collect();
    found.sort();
    found.dedup();
    found
}

/// The interface of a line of the table, if the route is a default one that leads somewhere. A name that could be read as more
/// than a name is nobody's.
fn default_route(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, "00000000", _, flags, _, _, _, "00000000", ..] = fields[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b));
    (plain && flags & UP != 0 && flags & REJECT == 0).then(|| name.to_owned())
}

/// The first that is another machine: what boxes send to this one itself never arrives.
fn first_resolver(text: &str, own: &[(String, Ipv4Addr)]) -> Option<Ipv4Addr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| match rest.trim().parse() {
        Ok(IpAddr::V4(address)) => Some(address),
        Ok(IpAddr::V6(_)) | Err(_) => None,
    });
    let mut others = addresses.filter(|address| {
        !address.is_loopback() && !address.is_unspecified() && own.iter().all(|(_, mine)| mine != address)
    });
    others.next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_internet_is_where_default_routes_lead_that_are_up() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
             wlan0\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth0\t00000000\t0100A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
             eth1\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
             tun0\t00000000\t00000000\t0003\t0\t0\t0\t00000080\t0\t0\t0\n\
             down\t00000000\t00000000\t0002\t0\t0\t0\t00000000\t0\t0\t0\n\
             *\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n\
             a\"b\t00000000\t00000000\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_routes(table), ["eth0", "wlan0"]);
        assert!(default_routes("").is_empty());
    }

    #[test]
    fn names_are_asked_of_the_first_resolver_that_is_another_machine() {
        let own = [("eth0".to_owned(), Ipv4Addr::new(192, 0, 2, 2))];
        let first = |text| first_resolver(text, &own).map(|address| address.to_string());
        let text = "# x\nsearch lan\nnameserver 127.0.0.53\nnameserver fd00::1\nnameserver 192.0.2.2\n nameserver\t9.9.9.9 \nnameserver 1.1.1.1\n";
        assert_eq!(first(text).as_deref(), Some("9.9.9.9"));
        assert_eq!(first("nameserver 0.0.0.0\nnameserver x\noptions edns0\n"), None);
    }

    #[test]
    fn the_machine_itself_has_at_least_one_address_and_an_interface_that_is_gone_is_no_error() {
        assert!(addresses().unwrap().iter().any(|(_, address)| address.is_loopback()));
        assert!(uplinks().is_ok());
        forward("nh-gone", true).unwrap();
        assert!(!forwards("nh-gone"));
    }
}
