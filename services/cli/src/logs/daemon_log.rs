//! What a daemon said. The daemons inherit their supervisor's standard error, so all of them write to one place: the log file of
//! a platform in the background, the journal under systemd, the terminal otherwise. Each line says whose it is.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    board::Board,
    failure::{FAILURE, Failure, OK},
    out,
    place::Place,
    systemd::{Form, active_form},
};

/// How often a followed file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest line that is kept together.
const LINE_MAX: u64 = 1 << 20;

/// What is wanted.
pub(crate) struct Wish<'a> {
    /// A daemon, or `supervisor`.
    pub(crate) daemon: &'a str,
    /// Only the last so many lines of what is there; none = all.
    pub(crate) tail: Option<usize>,
    pub(crate) follow: bool,
}

/// Prints the log of a daemon.
pub(crate) async fn show(place: &Place, wish: &Wish<'_>) -> Result<u8, Failure> {
    if let Some(form) = active_form(place) {
        return journal(form, wish);
    }
    if Board::live(&place.run).is_some() && !place.record().detached {
        let hint =
            "look at the terminal or the journal of whoever started it; `up --detach` keeps a log file";
        return Err(Failure::new(format!("{place} runs in the foreground and keeps no log file"), hint));
    }
    let path = place.log_file();
    let mut tail = Tail { last: VecDeque::new(), limit: wish.tail };
    let older = path.with_extension("log.1");
    if older.exists() {
        let mut reader = Follower::open(&older)?;
        while let Some(line) = reader.line()? {
            tail.keep(wish.daemon, line)?;
        }
    }
    if !path.exists() {
        return Err(place.not_up());
    }
    let mut reader = Follower::open(&path)?;
    while let Some(line) = reader.line()? {
        tail.keep(wish.daemon, line)?;
    }
    for line in tail.last {
        out::write(&line)?;
    }
    if wish.follow {
        follow(reader, wish.daemon).await?;
    }
    Ok(OK)
}

/// Goes on with what is written from now on; ends only with an error.
async fn follow(mut reader: Follower<'_>, daemon: &str) -> Result<(), Failure> {
    loop {
        while let Some(line) = reader.line()? {
            if belongs(&line, daemon) {
                out::write(&line)?;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
        reader.look_again()?;
    }
}

/// Lines on their way out: at once, or the last few when there are no more.
struct Tail {
    last: VecDeque<Vec<u8>>,
    limit: Option<usize>,
}

impl Tail {
    fn keep(&mut self, daemon: &str, line: Vec<u8>) -> Result<(), Failure> {
        if !belongs(&line, daemon) {
            return Ok(());
        }
        let Some(limit) = self.limit else { return out::write(&line) };
        self.last.push_back(line);
        if self.last.len() > limit {
            self.last.pop_front();
        }
        Ok(())
    }
}

/// Whether a line is this daemon's. The supervisor answers for its keeper, and for what isn't one of our lines (a panic, the
/// dynamic linker).
fn belongs(line: &[u8], daemon: &str) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    let owner = value.as_ref().and_then(|value| value.get("daemon")?.as_str());
    match owner {
        Some(owner) => owner == daemon || daemon == "supervisor" && owner == "keeper",
        None => daemon == "supervisor",
    }
}

/// A file read line by line, which may be cut while we read it.
struct Follower<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    position: u64,
    begun: Vec<u8>,
}

impl<'a> Follower<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::io("read", path, &error))?;
        Ok(Self { path, reader: BufReader::new(file), position: 0, begun: Vec::new() })
    }

    /// The next whole line with its newline; none for now.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let room = LINE_MAX.saturating_sub(self.begun.len() as u64);
        let read = self.reader.by_ref().take(room).read_until(b'\n', &mut self.begun);
        let read = read.map_err(|error| Failure::io("read", self.path, &error))?;
        self.position += read as u64;
        let whole = self.begun.ends_with(b"\n") || self.begun.len() as u64 >= LINE_MAX;
        Ok(whole.then(|| std::mem::take(&mut self.begun)))
    }

    /// Begins again when the file was cut.
    fn look_again(&mut self) -> Result<(), Failure> {
        let failed = |error| Failure::io("read", self.path, &error);
        if std::fs::metadata(self.path).map_err(failed)?.len() < self.position {
            self.reader = BufReader::new(File::open(self.path).map_err(failed)?);
            self.reader.seek(SeekFrom::Start(0)).map_err(failed)?;
            self.position = 0;
            self.begun.clear();
        }
        Ok(())
    }
}

fn journal(form: Form, wish: &Wish<'_>) -> Result<u8, Failure> {
    let unit = match form {
        Form::Units => format!("nexushub-{}.service", wish.daemon),
        Form::Supervised => "nexushub.service".to_owned(),
    };
    let mut command = Command::new("journalctl");
    command.args(["--output=cat", "--no-pager", "--unit", &unit]).stdout(Stdio::piped());
    if wish.follow {
        command.arg("--follow");
    }
    // Of the common journal, the last lines of one daemon can't be asked for.
    let tail = wish.tail.filter(|_| form == Form::Units || wish.follow);
    command.arg(tail.map_or_else(|| "--lines=all".to_owned(), |lines| format!("--lines={lines}")));
    let failed = |error| Failure::new(format!("could not run journalctl: {error}"), "is systemd installed?");
    let mut child = command.spawn().map_err(failed)?;
    let Some(stdout) = child.stdout.take() else { return Ok(FAILURE) };
    let mut kept = Tail { last: VecDeque::new(), limit: wish.tail.filter(|_| !wish.follow) };
    for line in BufReader::new(stdout).split(b'\n') {
        let mut line = line.map_err(failed)?;
        line.push(b'\n');
        match form {
            Form::Units => out::write(&line)?,
            Form::Supervised => kept.keep(wish.daemon, line)?,
        }
    }
    for line in kept.last {
        out::write(&line)?;
    }
    let status = child.wait().map_err(failed)?;
    Ok(if status.success() { OK } else { FAILURE })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_line_belongs_to_who_says_so() {
        assert!(belongs(br#"{"level":"info","daemon":"proxy","msg":"daemon procmgr"}"#, "proxy"));
        assert!(!belongs(br#"{"daemon":"proxy","msg":"\"daemon\":\"procmgr\""}"#, "procmgr"));
        assert!(belongs(br#"{"daemon":"keeper"}"#, "supervisor"));
        assert!(belongs(b"thread 'main' panicked", "supervisor"));
        assert!(!belongs(b"\xff\xfe", "proxy"));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail { last: VecDeque::new(), limit: Some(2) };
        for n in 0..5 {
            tail.keep("proxy", format!("{{\"daemon\":\"proxy\",\"n\":{n}}}\n").into_bytes()).unwrap();
            tail.keep("proxy", b"{\"daemon\":\"procmgr\"}\n".to_vec()).unwrap();
        }
        let last: Vec<_> = tail.last.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(last, ["{\"daemon\":\"proxy\",\"n\":3}\n", "{\"daemon\":\"proxy\",\"n\":4}\n"]);
    }

    #[test]
    fn lines_come_whole_and_a_cut_file_is_read_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "one\ntw").unwrap();
        let mut reader = Follower::open(&path).unwrap();
        assert_eq!(reader.line().unwrap().unwrap(), b"one\n");
        assert_eq!(reader.line().unwrap(), None);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"o\n").unwrap();
        reader.look_again().unwrap();
        assert_eq!(reader.line().unwrap().unwrap(), b"two\n");
        file.set_len(0).unwrap();
        file.write_all(b"3\n").unwrap();
        assert_eq!(reader.line().unwrap(), None);
        reader.look_again().unwrap();
        assert_eq!(reader.line().unwrap().unwrap(), b"3\n");
    }
}
