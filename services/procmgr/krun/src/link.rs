//! The machine's way out to the internet: its frames pass the keeper, which looks at nothing of them but their kind.
//!
//! ```text
//! guest: eth0 ── VMM ── a pair of sockets ── keeper ── tap: made here as eth0, taken by the process manager into the host's network
//! ```
//! The VMM has nothing but its end of the pair: no device, no interface, a network with nothing in it. The tap ends with the keeper.
#![allow(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use std::{fs::File, mem, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::{errno::Errno, libc};

/// What the process manager knows it by.
const NAME: &[u8] = b"eth0";
const TAPS: &str = "/dev/net/tun";
/// Longest wait until it is taken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// More than a frame ever has: 1,500 bytes and their head. What a guest makes longer is cut, and then nobody's.
const FRAME: usize = 2048;

/// A link whose other end nobody has yet.
pub(crate) fn open() -> io::Result<File> {
    let told = |error| io::Error::other(format!("its way out to the internet: {TAPS}: {error}"));
    let tap = File::options().read(true).write(true).open(TAPS).map_err(told)?;
    // SAFETY: an all-zero ifreq is valid; the kernel reads its name and flags while the call lasts.
    let made = unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        Errno::result(libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request))
    };
    made.map_err(|errno| told(errno.into()))?;
    Ok(tap)
}

/// Waits until it is up on its other side: an app that asks for the internet finds it from its first instruction on.
pub(crate) fn await_taken(tap: &File, patience: Duration) -> io::Result<()> {
    let mut waited = [PollFd::new(tap.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    while let Err(errno) = poll(&mut waited, patience) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    let up = waited[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
    up.then_some(()).ok_or_else(|| io::Error::other("could not find the way out to the internet"))
}

/// The guest's end of it, for the VMM, and ours.
pub(crate) fn pair() -> io::Result<(OwnedFd, UnixDatagram)> {
    UnixDatagram::pair().map(|(guest, own)| (guest.into(), own))
}

/// Passes frames on both ways, until the VMM is gone. A guest that takes none has those behind dropped by the kernel.
pub(crate) fn serve(tap: File, guest: UnixDatagram) -> io::Result<()> {
    let (from, to) = (tap.try_clone()?, guest.try_clone()?);
    thread::spawn(move || {
        tell(&pass(|frame| (&from).read(frame), |frame| to.send(frame).map(drop)), "to the guest");
    });
    thread::spawn(move || {
        tell(&pass(|frame| guest.recv(frame), |frame| outward(&tap, frame)), "from the guest");
    });
    Ok(())
}

/// Passes frames on one way; says what ended it.
fn pass(
    mut take: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut give: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Error {
    let mut frame = [0; FRAME];
    loop {
        let taken = uninterrupted(|| take(&mut frame));
        if let Err(end) = taken.and_then(|length| uninterrupted(|| give(&frame[..length]))) {
            return end;
        }
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What is no frame, or while the link is down, is the guest's loss alone; only a tap that is gone ends it.
fn outward(mut tap: &File, frame: &[u8]) -> io::Result<()> {
    if !is_internet(frame) {
        return Ok(());
    }
    match tap.write(frame) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a frame is of IPv4, ARP or IPv6. The host's rules judge these; of others it might have no rule but take them.
fn is_internet(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x08, 0x00 | 0x06] | [0x86, 0xdd]))
}

/// Says an end that is not the VMM's, in the app's log: without its frames the app runs on, and nobody else knows why.
fn tell(end: &io::Error, way: &str) {
    if !is_vmm_gone(end) {
        eprintln!("nexushub-krun: its way out to the internet, {way}, ended: {end}");
    }
}

fn is_vmm_gone(end: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(end.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(kind: [u8; 2], length: usize) -> Vec<u8> {
        let mut frame = vec![7; length];
        frame[12..14].copy_from_slice(&kind);
        frame
    }

    #[test]
    fn what_is_neither_ip_nor_arp_stays_with_the_guest() {
        for kind in [[0x81, 0x00], [0x88, 0xa8], [0x88, 0xcc], [0x08, 0x01], [0x00, 0x26]] {
            assert!(!is_internet(&of(kind, 60)), "{kind:?}");
        }
        assert!(!is_internet(&[0x08; 13]));
    }

    #[test]
    fn a_signal_ends_neither_way_and_what_does_is_said_unless_it_is_the_end_of_the_vmm() {
        let mut takes = [Err(libc::EINTR), Ok(3), Ok(2), Err(libc::EIO)].into_iter();
        let mut gives = [Err(libc::EINTR), Ok(()), Ok(())].into_iter();
        let mut given = Vec::new();
        let end = pass(
            |_| takes.next().unwrap().map_err(io::Error::from_raw_os_error),
            |frame| {
                given.push(frame.len());
                gives.next().unwrap().map_err(io::Error::from_raw_os_error)
            },
        );
        assert_eq!((given, end.raw_os_error()), (vec![3, 3, 2], Some(libc::EIO)));
        assert!(!is_vmm_gone(&end));
        let (guest, own) = pair().unwrap();
        drop(guest);
        assert!(is_vmm_gone(&own.send(b"frame").unwrap_err()));
    }

    #[test]
    fn frames_pass_both_ways_one_by_one_until_the_machine_is_gone() {
        // A pair in the tap's place, which also tells one frame from the next.
        let (tap, world) = UnixDatagram::pair().unwrap();
        let (guest, own) = pair().unwrap();
        let (guest, tap) = (UnixDatagram::from(guest), File::from(OwnedFd::from(tap)));
        serve(tap, own).unwrap();
        let mut heard = [0; 2 * FRAME];
        for (kind, length) in [([0x08, 0x00], 60), ([0x08, 0x06], 42), ([0x86, 0xdd], 1514)] {
            let frame = &*of(kind, length);
            guest.send(b"").unwrap();
            guest.send(frame).unwrap();
            let length = world.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], frame);
            world.send(frame).unwrap();
            let length = guest.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], frame);
        }
        guest.send(&of([0x08, 0x00], FRAME + 100)).unwrap();
        assert_eq!(world.recv(&mut heard).unwrap(), FRAME);
        drop(guest);
    }

    #[test]
    fn what_nobody_takes_is_waited_for_and_what_is_there_is_up() {
        let (tap, _world) = UnixDatagram::pair().unwrap();
        await_taken(&File::from(OwnedFd::from(tap)), PATIENCE).unwrap();
    }

    #[test]
    fn what_is_never_up_is_refused() {
        let (tap, _world) = UnixDatagram::pair().unwrap();
        tap.set_nonblocking(true).unwrap();
        while tap.send(&[0; FRAME]).is_ok() {} // full, it can't be written to: as a tap that is down
        let refused = await_taken(&File::from(OwnedFd::from(tap)), Duration::ZERO).unwrap_err();
        assert_eq!(refused.to_string(), "could not find the way out to the internet");
    }
}
