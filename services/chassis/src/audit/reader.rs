//! Tells what audit logs hold, those of all daemons together, and verifies that they hold what was written.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::entry::{self, Entry, START};

const EXTENSION: &str = ".log";
/// No daemon keeps more files than that.
const FILES: u32 = 1000;

/// What became of a daemon's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Whose it is.
    pub daemon: String,
    /// Entries that are there and follow each other, up to where it breaks if it does.
    pub entries: u64,
    /// The digest of the last of them; empty if there is none.
    pub last: String,
    /// It begins with the first entry ever; older ones were deleted otherwise, as they are in time.
    pub from_start: bool,
    /// Bytes of a last line that was not finished: it is being written, or its daemon was killed at that.
    pub torn: usize,
    /// Where it is not what was written.
    pub broken: Option<Break>,
}

/// Where a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// In this file.
    pub file: PathBuf,
    /// On this line, from 1 on.
    pub line: u64,
    /// What is wrong with it, for people.
    pub why: &'static str,
}

/// The newest `count` entries of all daemons, in the order of their times. Lines that are none are left out.
///
/// # Errors
/// When the folder or a file can't be read; no folder is no entry.
pub fn tail(folder: &Path, count: usize) -> io::Result<Vec<Entry>> {
    let mut all = Vec::new();
    for daemon in daemons(folder)? {
        let mut newest = Vec::new();
        for file in files(folder, &daemon).into_iter().rev() {
            let mut here: Vec<Entry> =
                lines(&fs::read(file)?).filter_map(|line| Some(entry::read(line).ok()?.0)).collect();
            here.extend(newest);
            newest = here;
            if newest.len() >= count {
                break;
            }
        }
        all.extend(newest.drain(newest.len().saturating_sub(count)..));
    }
    all.sort_by(|one: &Entry, other| one.ts.cmp(&other.ts));
    all.drain(..all.len().saturating_sub(count));
    Ok(all)
}

/// Verifies every daemon's log.
///
/// # Errors
/// When the folder or a file can't be read; no folder is no log.
pub fn verify(folder: &Path) -> io::Result<Vec<Chain>> {
    daemons(folder)?.into_iter().map(|daemon| chain(folder, daemon)).collect()
}

fn chain(folder: &Path, daemon: String) -> io::Result<Chain> {
    let (last, from_start) = (String::new(), false);
    let mut chain = Chain { daemon, entries: 0, last, from_start, torn: 0, broken: None };
    for file in files(folder, &chain.daemon) {
        let bytes = fs::read(&file)?;
        for (line, number) in lines(&bytes).zip(1..) {
            if let Err(why) = chain.follow(line) {
                chain.broken = Some(Break { file, line: number, why });
                return Ok(chain);
            }
        }
        chain.torn = bytes.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
    }
    Ok(chain)
}

impl Chain {
    /// The next line.
    fn follow(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if self.torn > 0 {
            return Err("the file before this one ends within a line");
        }
        let (entry, sum) = entry::read(line)?;
        if self.entries == 0 {
            self.from_start = entry.prev == START;
        } else if entry.prev != self.last {
            return Err("it does not follow the line before it: lines were taken out, put in or moved");
        }
        self.entries += 1;
        self.last = sum;
        Ok(())
    }
}

/// The daemons that have logs, by name.
fn daemons(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let names = entries.iter().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (daemon, rest) = name.split_once(EXTENSION)?;
        let is_one =
            rest.is_empty() || rest.strip_prefix('.').is_some_and(|number| number.parse::<u32>().is_ok());
        (is_one && !daemon.is_empty()).then(|| daemon.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// A daemon's files, the oldest first; also those before one that is missing, which the chain then shows.
fn files(folder: &Path, daemon: &str) -> Vec<PathBuf> {
    let present = folder.join(format!("{daemon}{EXTENSION}"));
    let older = (1..=FILES).map(|number| numbered(&present, number)).filter(|path| path.exists());
    let mut files: Vec<PathBuf> = older.collect();
    files.reverse();
    files.extend(present.exists().then_some(present));
    files
}

/// The file that was there so many before this one.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The lines that have an end.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    bytes[..whole].split(|byte| *byte == b'\n').filter(move |_| whole > 0)
}
