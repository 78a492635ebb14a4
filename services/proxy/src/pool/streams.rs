//! Connections to an app that speaks h2c, each shared by many exchanges. Each thread has its own; another is opened when those
//! there are have as many streams as they may, and one that has none is closed again but for the first.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ::h2::client::Builder;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit},
    time::timeout,
};

use super::{Pool, Unavailable};
use crate::h2c::Sender;

/// Streams at once on one connection, if its app lets us have so many.
const STREAMS: usize = 128;
/// What an app may send on a stream ahead of its client. Together the streams of a connection may have all of theirs, so that a
/// client that takes nothing holds up no other.
const AHEAD: u32 = 128 * 1024;

/// A connection.
#[derive(Debug, Clone)]
struct Line {
    sender: Sender,
    /// It takes no further exchange.
    over: Arc<AtomicBool>,
    /// Held by each exchange on it, and by the list.
    held: Arc<()>,
}

impl Line {
    fn streams(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }

    fn has_room(&self) -> bool {
        self.streams() < self.sender.current_max_send_streams().min(STREAMS)
    }
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Vec<Line>>);

/// A place for one exchange.
#[derive(Debug)]
pub(crate) struct Lease {
    line: Line,
    /// The connection was there before.
    pub(crate) reused: bool,
    _pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

impl Lease {
    /// What begins the exchange.
    pub(crate) fn sender(&mut self) -> &mut Sender {
        &mut self.line.sender
    }

    /// Nobody else is to be given the connection.
    pub(crate) fn distrust(&self) {
        self.line.over.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    /// A place on a connection of this thread; who needs a new one waits for whoever is opening one.
    pub(crate) async fn take_stream(self: &Arc<Self>) -> Result<Lease, Unavailable> {
        let turn = self.turn().await?;
        let late = |_| Unavailable::Connect(io::ErrorKind::TimedOut.into());
        let (line, reused) =
            timeout(self.limits.connect, self.line()).await.map_err(late)?.map_err(Unavailable::Connect)?;
        Ok(Lease { line, reused, _pool: Arc::clone(self), _turn: turn })
    }

    async fn line(&self) -> io::Result<(Line, bool)> {
        let mut lines = self.shared[self.seat()].0.lock().await;
        loop {
            let mut first = true;
            lines.retain(|line| {
                !line.over.load(Ordering::Relaxed) && (std::mem::take(&mut first) || line.streams() > 0)
            });
            let Some(line) = lines.iter().find(|line| line.has_room()) else { break };
            let line = line.clone();
            match line.sender.clone().ready().await {
                Ok(_) => return Ok((line, true)),
                Err(_) => line.over.store(true, Ordering::Relaxed),
            }
        }
        let line = self.open_line().await?;
        lines.push(line.clone());
        Ok((line, false))
    }

    async fn open_line(&self) -> io::Result<Line> {
        let head_bytes = u32::try_from(self.limits.head.head_bytes).unwrap_or(u32::MAX);
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(AHEAD)
            .initial_connection_window_size(AHEAD * STREAMS as u32)
            .max_header_list_size(head_bytes)
            .handshake(self.connect().await?)
            .await
            .map_err(io::Error::other)?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        tokio::spawn(async move {
            let _ = connection.await; // each of its streams is told
            ended.store(true, Ordering::Relaxed);
        });
        Ok(Line { sender, over, held: Arc::default() })
    }
}
