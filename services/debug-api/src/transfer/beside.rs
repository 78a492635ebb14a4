//! What is done beside the writing of an upload's bytes, so that the writing waits for neither: their digest is taken in a thread of
//! its own, and what was written is brought to the disk in another, so that little is left of it when the request ends.
//!
//! A thread that can't be started is done without: the digest is then taken when all is there, and the disk heard at the end.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use axum::body::Bytes;

use crate::digests::Running;

/// Pieces that wait for their digest; with what one read of the connection brings at most, a bound on memory.
const PIECES: usize = 16;
/// So many bytes later the disk is asked for again.
const EVERY: u64 = 32 << 20;

/// What goes on beside one request's bytes.
pub(super) struct Beside {
    digesting: Digesting,
    syncing: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
    /// Bytes since the disk was asked for.
    unsynced: u64,
}

/// Who takes the digest.
enum Digesting {
    Thread(SyncSender<Bytes>, JoinHandle<Running>),
    /// Nobody: it is behind already, or there is no thread.
    Later(Running),
}

impl Beside {
    /// For bytes that follow those that `running` is the digest of, if it is one of all `length` that are there.
    pub(super) fn start(running: Running, length: u64, data: Arc<File>) -> Self {
        let digesting =
            if running.bytes() == length { digesting(running) } else { Digesting::Later(running) };
        let (wakes, woken) = sync_channel(1);
        let thread = Builder::new().name("sync".into()).spawn(move || sync(&data, &woken));
        Self { digesting, syncing: thread.ok().map(|thread| (wakes, thread)), unsynced: 0 }
    }

    /// These were written.
    pub(super) fn wrote(&mut self, bytes: Bytes) {
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= EVERY
            && let Some((wakes, _)) = &self.syncing
        {
            let _ = wakes.try_send(()); // one that is at it goes on until it is through
            self.unsynced = 0;
        }
        if let Digesting::Thread(pieces, _) = &self.digesting {
            let _ = pieces.send(bytes); // if the thread has ended, the digest is taken later
        }
    }

    /// Waits for both: the digest as far as it was taken, and whether the disk took what it was asked for.
    pub(super) fn finish(self) -> (Running, io::Result<()>) {
        let running = match self.digesting {
            Digesting::Later(running) => running,
            Digesting::Thread(pieces, thread) => {
                drop(pieces);
                thread.join().unwrap_or_default()
            }
        };
        let Some((wakes, thread)) = self.syncing else { return (running, Ok(())) };
        drop(wakes);
        (running, thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has ended"))))
    }
}

fn digesting(running: Running) -> Digesting {
    let (sender, pieces) = sync_channel::<Bytes>(PIECES);
    let mut digest = running.clone();
    let thread = Builder::new().name("digest".into()).spawn(move || {
        pieces.iter().for_each(|piece| digest.update(&piece));
        digest
    });
    thread.map_or(Digesting::Later(running), |thread| Digesting::Thread(sender, thread))
}

/// An error is told by the system once: it is kept for the end.
fn sync(data: &File, woken: &Receiver<()>) -> io::Result<()> {
    woken.iter().try_for_each(|()| data.sync_data())
}
