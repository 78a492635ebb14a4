//! The machine's way out to the internet: its frames pass the keeper, which looks at none of them.
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
const PATIENCE: Duration = Duration::from_secs(30);
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
pub(crate) fn await_taken(tap: &File) -> io::Result<()> {
    let mut waited = [PollFd::new(tap.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
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
    thread::spawn(move || inward(from, &to));
    thread::spawn(move || outward(&guest, tap));
    Ok(())
}

fn inward(mut tap: File, guest: &UnixDatagram) {
    let mut frame = [0; FRAME];
    loop {
        match tap.read(&mut frame) {
            Ok(length) if guest.send(&frame[..length]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn outward(guest: &UnixDatagram, mut tap: File) {
    let mut frame = [0; FRAME];
    loop {
        match guest.recv(&mut frame) {
            Ok(0) => {}                                      // of no bytes: an end is an error here
            Ok(length) => drop(tap.write(&frame[..length])), // what is no frame is refused
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_pass_both_ways_one_by_one_until_the_machine_is_gone() {
        // A pair in the tap's place, which also tells one frame from the next.
        let (tap, world) = UnixDatagram::pair().unwrap();
        let (guest, own) = pair().unwrap();
        let (guest, tap) = (UnixDatagram::from(guest), File::from(OwnedFd::from(tap)));
        serve(tap, own).unwrap();
        let mut heard = [0; 2 * FRAME];
        for frame in [&b"one"[..], b"another", &[7; 1514]] {
            guest.send(b"").unwrap();
            guest.send(frame).unwrap();
            let length = world.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], frame);
            world.send(frame).unwrap();
            let length = guest.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], frame);
        }
        guest.send(&[9; FRAME + 100]).unwrap();
        assert_eq!(world.recv(&mut heard).unwrap(), FRAME);
        drop(guest);
    }

    #[test]
    fn what_nobody_takes_is_waited_for_and_what_is_there_is_up() {
        let (tap, _world) = UnixDatagram::pair().unwrap();
        await_taken(&File::from(OwnedFd::from(tap))).unwrap();
    }
}
