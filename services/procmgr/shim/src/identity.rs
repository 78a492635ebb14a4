//! Which process is which: `/proc/<pid>/stat`, and whether a recorded process is still the same one.

use std::{fs, io};

use nexushub_launch::clock;
use nix::libc;

use crate::record::{Process, Record};

/// What the kernel says of a process (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `Z` and `X` are dead.
    pub state: u8,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    /// Of a live process.
    ///
    /// # Errors
    /// `NotFound` when there is none of that pid.
    pub fn of(pid: u32) -> io::Result<Self> {
        let line = fs::read(format!("/proc/{pid}/stat")).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => io::ErrorKind::NotFound.into(), // it went between open and read
            _ => error,
        })?;
        Self::parse(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The program's own name stands in parentheses and may hold any bytes, so fields are counted from the last one.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let fields = str::from_utf8(line.rsplit(|byte| *byte == b')').next()?).ok()?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            parent: number(1)?.try_into().ok()?,
            group: number(2)?.try_into().ok()?,
            session: number(3)?.try_into().ok()?,
            start: number(19)?,
        })
    }

    /// Whether it has ended and only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Every process that can be seen.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn processes() -> io::Result<impl Iterator<Item = (u32, Stat)>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Some((pid, Stat::of(pid).ok()?))
    }))
}

/// A recorded process today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The record names none yet.
    Unstarted,
    /// It lives.
    Alive,
    /// There is no process of that pid, or it is dead and waits to be reaped.
    Gone,
    /// Its pid belongs to another process now: not to be touched.
    Stranger,
}

/// Judges the shim of a record.
///
/// # Errors
/// When `/proc` can't be read: nothing is known then.
pub fn verify(record: &Record) -> io::Result<Identity> {
    let Some(Process { pid, start }) = record.shim else { return Ok(Identity::Unstarted) };
    match Stat::of(pid) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Identity::Gone),
        Err(error) => Err(error),
        Ok(stat) if stat.start != start || record.boot_id != clock::boot_id()? => Ok(Identity::Stranger),
        Ok(stat) if stat.is_dead() => Ok(Identity::Gone),
        Ok(_) => Ok(Identity::Alive),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::{Command, id};

    use super::*;
    use crate::record::tests::record;

    fn of(shim: Option<Process>) -> Record {
        Record { shim, boot_id: clock::boot_id().unwrap(), ..record() }
    }

    #[test]
    fn only_pid_start_and_boot_together_are_a_process() {
        let me = Process { pid: id(), start: Stat::of(id()).unwrap().start };
        assert_eq!(verify(&of(Some(me))).unwrap(), Identity::Alive);
        assert_eq!(verify(&of(None)).unwrap(), Identity::Unstarted);
        assert_eq!(verify(&of(Some(Process { start: me.start + 1, ..me }))).unwrap(), Identity::Stranger);
        assert_eq!(verify(&Record { boot_id: "other".into(), ..of(Some(me)) }).unwrap(), Identity::Stranger);
        assert_eq!(verify(&of(Some(Process { pid: i32::MAX as u32, start: 1 }))).unwrap(), Identity::Gone);
    }

    #[test]
    fn a_process_that_waits_to_be_reaped_is_gone() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process { pid: child.id(), start: Stat::of(child.id()).unwrap().start };
        assert_eq!(verify(&of(Some(process))).unwrap(), Identity::Alive);
        drop(child.stdin.take());
        let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(id), flags).unwrap();
        assert_eq!(verify(&of(Some(process))).unwrap(), Identity::Gone);
        child.wait().unwrap();
    }

    #[test]
    fn a_program_may_call_itself_anything() {
        let line = b"7 (a) R \xff) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.session, stat.start), (b'S', 1, 2, 3, 99));
        assert_eq!(Stat::parse(b"garbage"), None);
        assert_eq!(Stat::parse(b"7 (x) "), None);
    }
}
