//! Appends to a daemon's audit log, whole lines only, and turns to a new file in time. Generations of a daemon may overlap: each
//! takes turns by a lock, and goes on from what the other has written.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nexushub_launch::{clock::rfc3339, durable, lock::Lock};

use super::{
    Event,
    entry::{self, Entry, START},
    reader::numbered,
};

/// Longest wait for another generation's turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// No line is longer: nine fields of a KiB, each byte of which JSON may write as six.
const LINE: u64 = 64 * 1024;

/// What a daemon's audit log may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// A file that has so many bytes is the last one but the next.
    pub(super) bytes: u64,
    /// Files kept besides the one that is written to.
    pub(super) kept: u32,
}

/// 64 MiB in all, some 150,000 entries.
pub(super) const BOUNDS: Bounds = Bounds { bytes: 8 << 20, kept: 7 };

/// Who appends.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    daemon: &'static str,
    bounds: Bounds,
    open: Option<Open>,
}

/// The present file as it was left.
#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    length: u64,
    /// The digest of the last line.
    last: String,
}

impl Writer {
    pub(super) fn new(folder: PathBuf, daemon: &'static str, bounds: Bounds) -> Self {
        Self { folder, daemon, bounds, open: None }
    }

    /// An entry about the log itself.
    pub(super) fn own(&self, what: &'static str, detail: String) -> Entry {
        let event =
            Event { who: self.daemon.into(), what, object: "audit".into(), detail, ..Event::default() };
        Entry::new(rfc3339(SystemTime::now()), self.daemon, event)
    }

    /// Writes all of these, durably, or none.
    pub(super) fn append(&mut self, mut entries: Vec<Entry>) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let busy = || io::Error::new(io::ErrorKind::TimedOut, "another generation does not let go of it");
        let _turn = Lock::acquire_within(&self.folder.join(format!(".{}.lock", self.daemon)), PATIENCE)?
            .ok_or_else(busy)?;
        let path = self.path();
        let (mut open, torn) = match self.open.take() {
            Some(open) if open.is(&path) => (open, 0),
            _ => self.reopen(&path)?,
        };
        if torn > 0 {
            entries
                .insert(0, self.own("audit.mended", format!("a torn line of {torn} bytes was taken away")));
        }
        open.append(entries)?;
        let is_full = open.length >= self.bounds.bytes;
        if is_full && let Err(error) = self.turn(&path) {
            tracing::warn!(object = %path.display(), %error, "the audit log goes on in a file that is full"); // nothing of it is lost
        } else if !is_full {
            self.open = Some(open);
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.daemon))
    }

    /// Opens the present file; how many bytes of a line that was never finished were taken away.
    fn reopen(&self, path: &Path) -> io::Result<(Open, u64)> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let end = end_of(&mut file, length)?;
        let torn = length - end.whole;
        if torn > 0 {
            file.set_len(end.whole)?;
        }
        let last = match end.last {
            Some(last) => last,
            None => match File::open(numbered(path, 1)) {
                Ok(mut before) => {
                    let length = before.metadata()?.len();
                    end_of(&mut before, length)?.last.unwrap_or_else(|| START.to_owned())
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => START.to_owned(),
                Err(error) => return Err(error),
            },
        };
        durable::sync_dir(&self.folder)?;
        Ok((Open { inode: file.metadata()?.ino(), file, length: end.whole, last }, torn))
    }

    /// Every file becomes the one before it; the oldest goes.
    fn turn(&self, path: &Path) -> io::Result<()> {
        for number in (1..=self.bounds.kept).rev() {
            let newer = if number == 1 { path.to_owned() } else { numbered(path, number - 1) };
            match fs::rename(&newer, numbered(path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        durable::sync_dir(&self.folder)
    }
}

impl Open {
    /// Whether it is still this file, and nobody else has written to it.
    fn is(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| found.ino() == self.inode && found.len() == self.length)
    }

    fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let (mut text, mut last) = (String::new(), self.last.clone());
        for entry in entries {
            let (line, sum) = entry.line(&last);
            text.push_str(&line);
            last = sum;
        }
        if let Err(error) = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()) {
            let _ = self.file.set_len(self.length); // no part of it; what can't be taken away is, when it is opened anew
            return Err(error);
        }
        self.length += text.len() as u64;
        self.last = last;
        Ok(())
    }
}

/// How a file ends.
struct End {
    /// Bytes up to the end of the last line that has one.
    whole: u64,
    /// That line's digest; none if there is no line.
    last: Option<String>,
}

fn end_of(file: &mut File, length: u64) -> io::Result<End> {
    let from = length.saturating_sub(2 * LINE);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(length - from).read_to_end(&mut bytes)?;
    let Some(newline) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        return Ok(End { whole: from, last: None });
    };
    let start = bytes[..newline].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = &bytes[start..newline];
    // One that somebody has changed is followed as it is: what was written before stays proven.
    let sum = entry::read(line).map_or_else(|_| entry::sum_of(line), |(_, sum)| sum);
    Ok(End { whole: from + newline as u64 + 1, last: Some(sum) })
}
