//! Processes that this guest's kernel killed for want of memory. It says so in its log and nowhere else: the kernel of libkrun
//! counts no events in `/proc/vmstat` and has no control groups for memory.

use std::os::unix::fs::OpenOptionsExt as _;
use std::{fs::File, io::Read as _};

use nix::libc;

const LOG: &str = "/dev/kmsg";
/// The kernel gives one record at a time, none longer than this.
const RECORD_MAX: usize = 8192;
/// Above what the kernel itself says are the facilities of those who write to its log.
const FACILITIES: u32 = 8;

/// How far the log was read, and what it said.
#[derive(Default)]
pub(crate) struct Kills {
    log: Option<File>,
    count: u64,
}

impl Kills {
    /// So many, ever.
    pub(crate) fn count(&mut self) -> u64 {
        if self.log.is_none() {
            // Before there are devices there is no app.
            self.log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(LOG).ok();
        }
        let mut record = [0; RECORD_MAX];
        while let Some(log) = &mut self.log {
            match log.read(&mut record) {
                Ok(length @ 1..) => self.count += u64::from(tells_of_a_kill(&record[..length])),
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {} // the oldest made room for newer ones
                _ => break,
            }
        }
        self.count
    }

    /// So many, where the kernel has perhaps just killed one: it kills first and says so then, and on another processor that may be
    /// after the end was seen. So it is looked again, until it has said something or has had its time.
    pub(crate) fn count_after_a_kill(&mut self, looks: u32, mut pause: impl FnMut()) -> u64 {
        let before = self.count;
        for _ in 1..looks {
            if self.count() > before {
                break;
            }
            pause();
        }
        self.count()
    }
}

/// Of `priority,number,time,flags;text`, where the priority holds the facility too.
fn tells_of_a_kill(record: &[u8]) -> bool {
    let record = String::from_utf8_lossy(record);
    let Some((head, text)) = record.split_once(';') else { return false };
    let priority = head.split(',').next().and_then(|priority| priority.parse().ok());
    priority.is_some_and(|priority: u32| priority < FACILITIES)
        && text.starts_with("Out of memory: Killed process ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::{fd::OwnedFd, unix::net::UnixDatagram};

    use super::*;

    #[test]
    fn a_kill_that_is_said_after_the_end_was_seen_still_counts() {
        let (kernel, log) = UnixDatagram::pair().unwrap(); // a record at a time, as the kernel gives them
        log.set_nonblocking(true).unwrap();
        let mut kills = Kills { log: Some(OwnedFd::from(log).into()), count: 0 };
        let say = || kernel.send(b"3,211,4815162,-;Out of memory: Killed process 63 (app)\n").unwrap();
        let mut pauses = 0;
        let late = |pauses: &mut u32| {
            *pauses += 1;
            if *pauses == 3 {
                say();
            }
        };
        assert_eq!(kills.count_after_a_kill(10, || late(&mut pauses)), 1);
        assert_eq!(pauses, 3, "once it is said nobody waits");
        assert_eq!(kills.count_after_a_kill(10, || pauses += 1), 1);
        assert_eq!(pauses, 12, "it was somebody else's, and the wait is bounded");
        say();
        assert_eq!((kills.count_after_a_kill(10, || pauses += 1), pauses), (2, 12));
    }

    #[test]
    fn only_the_kernels_own_word_of_a_kill_counts() {
        let kill = "Out of memory: Killed process 63 (app) total-vm:409600kB, anon-rss:102400kB";
        for (record, tells) in [
            (format!("3,211,4815162,-;{kill}\n"), true),
            (format!("3,211,4815162,-,caller=T63;{kill}\n SUBSYSTEM=x\n"), true),
            (format!("11,211,4815162,-;{kill}\n"), false), // facility 1: somebody's who wrote it there
            (format!("6,211,4815162,-;x: {kill}\n"), false),
            ("4,210,4815161,-;app invoked oom-killer: gfp_mask=0x140dca\n".into(), false),
            ("6,9,1,-;Out of memory: [63]: segfault at 0".into(), false), // a process by that name
            (kill.into(), false),
            (String::new(), false),
        ] {
            assert_eq!(tells_of_a_kill(record.as_bytes()), tells, "{record}");
        }
    }
}
