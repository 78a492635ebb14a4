//! Whose listener a port has: `running` requires that it is the app's own, since the reservation keeps other platforms out but
//! not a stranger that sets `SO_REUSEADDR` before the app listens. Judged from `/proc/net/tcp{,6}` (the listening sockets that
//! a connection to 127.0.0.1 can reach) and the descriptors of the generation's processes.

use std::{collections::BTreeSet, fs};

use crate::process;

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nothing listens.
    Nobody,
    /// Every listener is held by a process of the generation.
    App,
    /// One is not.
    Stranger,
}

/// Addresses, as those tables write them, at which a connection to 127.0.0.1 may arrive. `[::1]` is not one of them.
const REACHABLE: [&str; 4] =
    ["0100007F", "00000000", "00000000000000000000000000000000", "0000000000000000FFFF00000100007F"];

/// The inodes of the listening sockets of a port in one table.
fn listening(table: &str, port: u16) -> BTreeSet<u64> {
    let wanted = format!("{port:04X}");
    let inode = |line: &str| {
        let mut fields = line.split_whitespace();
        let (address, local_port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let fits = state == "0A" && local_port == wanted && REACHABLE.contains(&address);
        let inode = fields.nth(5)?.parse().ok()?;
        fits.then_some(inode)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// The inode that a descriptor's link names, if it is a socket.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn held_by(pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| socket_inode(link.to_str()?)).collect()
}

/// Judges the listener of a port for the generation of a shim. Reads `/proc`: not for the owner task's own thread.
pub(crate) fn owner(port: u16, shim: u32) -> Owner {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let mut foreign: BTreeSet<u64> = tables.iter().flat_map(|table| listening(table, port)).collect();
    if foreign.is_empty() {
        return Owner::Nobody;
    }
    for pid in process::family(&process::all(), shim) {
        let held = held_by(pid);
        foreign.retain(|inode| !held.contains(inode));
        if foreign.is_empty() {
            return Owner::App;
        }
    }
    Owner::Stranger
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2711 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0 0 10 0
   1: 00000000:2711 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 100 0 0 10 0
   2: 0100007F:2711 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0000000000000000 100 0 0 10 0
   3: 0200007F:2711 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0000000000000000 100 0 0 10 0
   4: 0100007F:2712 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 555 1 0000000000000000 100 0 0 10 0
   garbage";

    #[test]
    fn only_listeners_that_loopback_reaches_count() {
        assert_eq!(listening(TABLE, 10_001), [111, 222].into());
        assert_eq!(listening(TABLE, 1), BTreeSet::new());
        assert_eq!(socket_inode("socket:[77]"), Some(77));
        assert_eq!(socket_inode("pipe:[77]"), None);
    }

    #[test]
    fn a_listener_is_its_processs_own_and_a_stranger_to_every_other_family() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(owner(port, std::process::id()), Owner::App);
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let judged = owner(port, other.id());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(judged, Owner::Stranger);
        drop(listener);
        assert_eq!(owner(port, std::process::id()), Owner::Nobody);
    }
}
