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
    use super::*;

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
