//! Reading an instance's log for a caller: what is kept, then, for a follower, what is written from now on. Every entry once,
//! by its position. A follower is woken by the kernel when the shim writes; nothing wakes while nobody follows.

use std::{collections::BTreeMap, io, path::PathBuf};

use nexushub_proto::procmgr::{LogEntry, LogGap, LogStream, ReadLogResponse, read_log_response::Event};
use nexushub_shim::{
    frame::Stream,
    reader::{Event as Read, Item, LogCursor, Reader, cursor},
    record::Record,
};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{error::ProcmgrError, generation, ids::InstanceId, news::News};

/// Entries read at once.
const BATCH: usize = 256;

/// Generations whose release is remembered: more don't say something at a time.
const ABREAST: usize = 8;

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Whose log.
    pub id: InstanceId,
    /// The instance's folder.
    pub instance: PathBuf,
    /// Only what follows.
    pub after: LogCursor,
    /// Only the newest of them; 0 = all.
    pub tail: usize,
    /// Go on with what is written from now on.
    pub follow: bool,
}

/// Where entries go.
pub(crate) type Sink = mpsc::Sender<Result<ReadLogResponse, Status>>;

/// Sends what is asked for until it is done or the caller is gone.
pub(crate) async fn send(request: Request, news: News, sink: Sink) {
    let id = request.id.clone();
    if let Err(error) = forward(request, &news, &sink).await {
        tracing::warn!(instance = %id, error = %error, "could not read a log");
        let _ = sink.send(Err(ProcmgrError::Log(id, error).into())).await;
    }
}

async fn forward(request: Request, news: &News, sink: &Sink) -> io::Result<()> {
    let folder = generation::log(&request.instance);
    // Watched before the first read: what is written in between wakes.
    let mut ear = request.follow.then(|| news.of(&folder));
    let mut releases = Releases { instance: request.instance.clone(), known: BTreeMap::new() };
    let mut reader = Reader::new(&folder, move |number| generation::may_write(&request.instance, number));
    let mut cursor = request.after;
    if request.tail > 0 {
        let count = request.tail;
        let (back, from) = blocking(reader, move |reader| reader.tail(count)).await?;
        (reader, cursor) = (back, cursor.join(&from));
    }
    loop {
        let (back, batch) = blocking(reader, move |reader| reader.read_after(&cursor, BATCH)).await?;
        reader = back;
        let quiet = batch.items.is_empty();
        cursor = batch.cursor;
        if !deliver(batch.items, &mut releases, sink).await {
            return Ok(());
        }
        match (&mut ear, quiet) {
            (_, false) => {}
            (None, true) => return Ok(()),
            (Some(ear), true) => {
                let gone = tokio::select! {
                    there_may_be_more = ear.wait() => !there_may_be_more,
                    () = sink.closed() => true,
                };
                if gone {
                    return Ok(());
                }
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    mut reader: Reader,
    work: impl FnOnce(&mut Reader) -> io::Result<T> + Send + 'static,
) -> io::Result<(Reader, T)> {
    let done = tokio::task::spawn_blocking(move || work(&mut reader).map(|value| (reader, value)));
    done.await.map_err(io::Error::other)?
}

/// Which release each generation runs.
struct Releases {
    instance: PathBuf,
    known: BTreeMap<u64, String>,
}

impl Releases {
    /// Its name; empty where the generation's record is gone. One look at a small file for each generation: too little to hand to
    /// another thread.
    fn of(&mut self, number: u64) -> String {
        let look = || {
            let record = Record::read(&self.instance.join(format!("g{number}"))).ok().flatten();
            let name =
                record.and_then(|record| Some(record.release.file_name()?.to_string_lossy().into_owned()));
            name.unwrap_or_default()
        };
        let name = self.known.entry(number).or_insert_with(look).clone();
        if self.known.len() > ABREAST {
            self.known.pop_first();
        }
        name
    }
}

/// Whether the caller is still there.
async fn deliver(items: Vec<Item>, releases: &mut Releases, sink: &Sink) -> bool {
    for item in items {
        if sink.send(Ok(to_proto(item, releases))).await.is_err() {
            return false;
        }
    }
    true
}

fn to_proto(item: Item, releases: &mut Releases) -> ReadLogResponse {
    let position = item.cursor.to_string();
    let event = match item.event {
        Read::Gap(dropped) => Event::Gap(LogGap { dropped, position }),
        Read::Entry(entry) => {
            let stream = match entry.stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
                Stream::System => LogStream::System,
            };
            Event::Entry(LogEntry {
                cursor: cursor::number(entry.generation, entry.seq),
                generation: entry.generation,
                unix_ms: entry.unix_ms,
                stream: stream.into(),
                line: entry.line,
                partial: entry.partial,
                pid: entry.pid,
                position,
                release: releases.of(entry.generation),
            })
        }
    };
    ReadLogResponse { event: Some(event) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, io::Write};

    use nexushub_shim::{frame::Frame, segment::Name};

    use super::*;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, seq: u64, text: &str) {
            let frame = Frame {
                seq,
                unix_ms: 1,
                stream: Stream::Stdout,
                partial: false,
                gap: false,
                pid: 7,
                payload: text.as_bytes(),
            };
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let folder = generation::log(self.0.path());
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(Name { generation: 1, index: 0 }.to_string());
            fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(&bytes).unwrap();
        }

        fn read(
            &self,
            after: &str,
            tail: usize,
            follow: bool,
        ) -> mpsc::Receiver<Result<ReadLogResponse, Status>> {
            let (sink, rx) = mpsc::channel(4);
            let id = InstanceId::parse("a").unwrap();
            let (instance, after) = (self.0.path().into(), after.parse().unwrap());
            tokio::spawn(send(Request { id, instance, after, tail, follow }, News::start(), sink));
            rx
        }
    }

    async fn next(rx: &mut mpsc::Receiver<Result<ReadLogResponse, Status>>) -> Option<(String, String)> {
        match rx.recv().await?.unwrap().event.unwrap() {
            Event::Entry(entry) => Some((entry.position, String::from_utf8(entry.line).unwrap())),
            Event::Gap(gap) => Some((gap.position, format!("gap {}", gap.dropped))),
        }
    }

    #[tokio::test]
    async fn without_follow_the_stream_ends_after_what_is_kept() {
        let log = Log::new();
        for seq in 1..=600 {
            log.write(seq, &seq.to_string());
        }
        let mut rx = log.read("", 0, false);
        for seq in 1..=600_u64 {
            assert_eq!(next(&mut rx).await.unwrap().1, seq.to_string());
        }
        assert!(next(&mut rx).await.is_none());
        let mut tail = log.read("", 2, false);
        assert_eq!(next(&mut tail).await.unwrap().1, "599");
    }

    #[tokio::test]
    async fn a_follower_gets_each_entry_once_and_can_resume_by_cursor() {
        let log = Log::new();
        log.write(1, "one");
        let mut rx = log.read("", 0, true);
        let (cursor, line) = next(&mut rx).await.unwrap();
        assert_eq!(line, "one");
        log.write(2, "two");
        assert_eq!(next(&mut rx).await.unwrap().1, "two");
        drop(rx);
        log.write(3, "three");
        let mut again = log.read(&cursor, 0, true);
        assert_eq!(next(&mut again).await.unwrap().1, "two");
        assert_eq!(next(&mut again).await.unwrap().1, "three");
    }

    #[tokio::test]
    async fn a_followers_stream_ends_when_the_log_is_removed() {
        let log = Log::new();
        log.write(1, "one");
        let mut rx = log.read("", 0, true);
        next(&mut rx).await.unwrap();
        drop(log);
        assert!(next(&mut rx).await.is_none());
    }
}
