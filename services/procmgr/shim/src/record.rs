//! The record of a generation, by which a restarted process manager finds it again. Written as an *intent* before the shim
//! is started; the shim completes it, in one step, before the app's first instruction.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::document::document;

/// Name of the record in the generation's folder.
pub const FILE: &str = "record";

/// A process for good, within one boot: a pid alone is given again to strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid={} start={}", self.pid, self.start)
    }
}

impl FromStr for Process {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start) = text.strip_prefix("pid=").and_then(|text| text.split_once(" start=")).ok_or(())?;
        // Neither init nor, by a sign, a process group.
        let pid = pid.parse().ok().filter(|pid| (2..=i32::MAX.cast_unsigned()).contains(pid)).ok_or(())?;
        Ok(Self { pid, start: start.parse().map_err(|_| ())? })
    }
}

document! {
    "record", b'\n', Record::flaw, @ FILE,
    /// What is known of one generation.
    #[derive(Debug)]
    Record {
        /// Id of the instance.
        instance: String,
        /// Which of its starts this is.
        generation: u64,
        /// Shared with the spec; proves that shim and record belong together.
        nonce: String,
        /// The boot in which it was started; pids of another boot mean nothing.
        boot_id: String,
        /// Folder of the release it runs.
        release: PathBuf,
        /// Its port on 127.0.0.1.
        port: Option<u16>,
        /// Name of the isolation in force.
        driver: String,
        /// The shim; none = an intent only.
        shim: Option<Process>,
        /// The app's main process.
        app: Option<Process>,
        /// The session that shim and app run in.
        session: Option<u32>,
    }
}

impl Record {
    fn flaw(&self) -> Option<&'static str> {
        (self.shim.is_some() != self.app.is_some()).then_some("shim and app come together or not at all")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn record() -> Record {
        Record {
            instance: "shop".into(),
            generation: 7,
            nonce: "0123456789abcdef".into(),
            boot_id: "b".into(),
            release: "/r".into(),
            port: Some(10_000),
            driver: "process".into(),
            shim: Some(Process { pid: 10, start: 20 }),
            app: Some(Process { pid: 11, start: 21 }),
            session: Some(10),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), None);
        for record in [record(), Record { port: None, shim: None, app: None, session: None, ..record() }] {
            record.write(folder.path()).unwrap();
            assert_eq!(Record::read(folder.path()).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_torn_or_forged_record_is_an_error() {
        let whole = record().encode().unwrap();
        for end in 0..whole.len() {
            let _ = Record::decode(&whole[..end]);
        }
        assert!(Record::decode(&whole[..whole.len() - 1]).is_err());
        for lie in [
            "shim=pid=1 start=5",
            "shim=pid=-1 start=5",
            "shim=pid=4294967295 start=5",
            "shim=7",
            "port=65536",
        ] {
            let text =
                String::from_utf8(Record { shim: None, app: None, port: None, ..record() }.encode().unwrap())
                    .unwrap();
            assert!(Record::decode(format!("{text}{lie}\n").as_bytes()).is_err(), "{lie}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), vec![b'x'; 70_000]).unwrap();
        assert!(Record::read(folder.path()).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn entries_of_a_later_version_are_passed_over() {
        let text = [record().encode().unwrap().as_slice(), b"colour=blue\n"].concat();
        assert_eq!(Record::decode(&text).unwrap(), record());
    }
}
