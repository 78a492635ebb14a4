//! The ports of the apps: a range, gone round in turn, each port held from its reservation to the end of its generation.
//!
//! A reservation is a socket bound to 127.0.0.1 **without** `SO_REUSEADDR`, so that it fails wherever anybody - another
//! platform on this machine too - already has the port; only then is `SO_REUSEADDR` set, which lets the app (that sets it
//! as servers do) bind and listen beside it, and still lets no second reservation in. The reservation never listens. The
//! shim keeps it for as long as its generation lives, so the kernel remembers what this table forgets when procmgr dies.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

use crate::ids::InstanceId;

/// Every port of the range is taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no free port in {first}-{last}: {held} held by instances ({holders}), {others} by other programs; widen port_first and port_last in [procmgr] or stop some of them"
)]
pub(crate) struct Exhausted {
    first: u16,
    last: u16,
    held: usize,
    holders: String,
    others: usize,
}

/// The table of the range.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
    next: u16,
    held: BTreeMap<u16, InstanceId>,
}

impl Ports {
    /// A range of at least one port.
    pub(crate) fn new(first: u16, last: u16) -> Self {
        Self { first, last: last.max(first), next: first, held: BTreeMap::new() }
    }

    /// Reserves the next free port for an instance. `take` makes the reservation and fails where the port isn't free.
    pub(crate) fn reserve<T>(
        &mut self,
        id: &InstanceId,
        mut take: impl FnMut(u16) -> io::Result<T>,
    ) -> Result<(u16, T), Exhausted> {
        let size = u32::from(self.last - self.first) + 1;
        let mut others = 0;
        for _ in 0..size {
            let port = self.next;
            self.next = if port == self.last { self.first } else { port + 1 };
            if self.held.contains_key(&port) {
                continue;
            }
            if let Ok(taken) = take(port) {
                self.held.insert(port, id.clone());
                return Ok((port, taken));
            }
            others += 1;
        }
        Err(self.exhausted(others))
    }

    /// Notes the port of a re-adopted generation, whose shim holds the reservation; the next reservations go on after it.
    pub(crate) fn adopt(&mut self, port: u16, id: &InstanceId) {
        self.held.insert(port, id.clone());
        if (self.first..self.last).contains(&port) && port >= self.next {
            self.next = port + 1;
        }
    }

    /// Forgets a port, if it is this instance's.
    pub(crate) fn release(&mut self, port: u16, id: &InstanceId) {
        if self.held.get(&port) == Some(id) {
            self.held.remove(&port);
        }
    }

    fn exhausted(&self, others: usize) -> Exhausted {
        let mut holders: Vec<&str> = self.held.values().take(10).map(InstanceId::as_str).collect();
        if self.held.len() > holders.len() {
            holders.push("…");
        }
        Exhausted {
            first: self.first,
            last: self.last,
            held: self.held.len(),
            holders: if holders.is_empty() { "none".into() } else { holders.join(", ") },
            others,
        }
    }
}

/// Makes the kernel's part of a reservation: bound, never listening, shared only with a listener that asks for it.
pub(crate) fn bind_reservation(port: u16) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    bind(fd.as_raw_fd(), &address)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    #[test]
    fn ports_are_given_round_robin_and_a_released_one_comes_last() {
        let mut ports = Ports::new(10, 13);
        let take = |ports: &mut Ports| ports.reserve(&id("a"), |_| Ok(())).map(|(port, ())| port);
        assert_eq!(take(&mut ports), Ok(10));
        assert_eq!(take(&mut ports), Ok(11));
        ports.release(10, &id("a"));
        assert_eq!(take(&mut ports), Ok(12));
        assert_eq!(take(&mut ports), Ok(13));
        assert_eq!(take(&mut ports), Ok(10));
    }

    #[test]
    fn an_exhausted_range_names_itself_and_its_holders() {
        let mut ports = Ports::new(10, 12);
        ports.reserve(&id("shop"), |_| Ok(())).unwrap();
        let error = ports
            .reserve(&id("b"), |_| Err::<(), _>(io::ErrorKind::AddrInUse.into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("10-12") && error.contains("1 held by instances (shop), 2 by other programs"),
            "{error}"
        );
    }

    #[test]
    fn a_port_is_released_only_by_its_holder_and_adoption_moves_the_cursor() {
        let mut ports = Ports::new(10, 12);
        ports.adopt(10, &id("old"));
        ports.release(10, &id("stranger"));
        assert_eq!(ports.reserve(&id("a"), |_| Ok(())).unwrap().0, 11);
        assert_eq!(ports.reserve(&id("b"), |_| Ok(())).unwrap().0, 12);
        assert!(ports.reserve(&id("c"), |_| Ok(())).is_err());
    }

    #[test]
    fn a_reservation_shuts_out_a_second_one_but_lets_the_app_listen_and_outlives_it() {
        let mut ports = Ports::new(19_000, 19_999);
        let (port, reservation) = ports.reserve(&id("a"), bind_reservation).unwrap();
        assert!(bind_reservation(port).is_err(), "given twice");

        // std sets SO_REUSEADDR before it binds, as every common server does.
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(bind_reservation(port).is_err(), "given twice while the app listens");
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "two listeners");
        let talk = std::thread::spawn(move || app.accept().unwrap().0.write_all(b"hi").unwrap());
        let mut heard = String::new();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap().read_to_string(&mut heard).unwrap();
        talk.join().unwrap();
        assert_eq!(heard, "hi");

        // The app is gone, the reservation still holds the port; an app on all addresses fits beside it too.
        assert!(bind_reservation(port).is_err(), "lost with the app");
        drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        drop(TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).unwrap());
        drop(reservation);
    }

    #[test]
    fn a_port_that_another_program_has_is_passed_over() {
        let mut ports = Ports::new(18_000, 18_999);
        let (taken, held) = ports.reserve(&id("other"), bind_reservation).unwrap();
        let mut mine = Ports::new(taken, taken + 20);
        assert!(mine.reserve(&id("a"), bind_reservation).unwrap().0 > taken);
        drop(held);
    }
}
