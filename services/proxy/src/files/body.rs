//! A large file on its way out: read piece by piece off the runtime's threads, the next piece only when the last is sent.

use std::{
    fs::File,
    future::Future,
    io,
    os::unix::fs::FileExt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes read at once.
const PIECE: u64 = 128 * 1024;

/// A part of a file.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Option<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<(File, io::Result<Bytes>)>>,
}

impl FileBody {
    /// These bytes of a file.
    pub(crate) fn new(file: File, start: u64, length: u64) -> Self {
        Self { file: Some(file), at: start, left: length, reading: None }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether none are.
    pub(crate) fn is_end(&self) -> bool {
        self.left == 0
    }

    /// The next piece. A file that has become shorter is an error, since its length was promised.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            let Some(file) = self.file.take() else { return Poll::Ready(None) };
            let (at, length) = (self.at, self.left.min(PIECE));
            self.reading = Some(spawn_blocking(move || read(file, at, length)));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let joined = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let (file, piece) = match joined {
            Ok(read) => read,
            Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
        };
        if let Ok(piece) = &piece {
            self.file = Some(file);
            self.at += piece.len() as u64;
            self.left -= piece.len() as u64;
        }
        Poll::Ready(Some(piece))
    }
}

fn read(file: File, at: u64, length: u64) -> (File, io::Result<Bytes>) {
    let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
    let result = file.read_exact_at(&mut piece, at).map(|()| piece.into());
    (file, result)
}
