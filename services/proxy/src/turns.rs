//! Turns: what takes a worker long is done one after the other, and before each of them whoever had something to read is served. Else
//! all that came at once kept everybody else waiting for as long as they took together.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
};

thread_local! {
    /// This thread's.
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// Waits for this thread's next turn, which is over when what is returned is dropped: nothing is awaited meanwhile. It is never none,
/// as nobody closes the semaphore.
pub(crate) async fn next() -> Option<OwnedSemaphorePermit> {
    let turn = TURNS.with(Arc::clone).acquire_owned().await.ok();
    yield_now().await;
    turn
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use tokio::{io::AsyncReadExt, net::UnixStream};

    use super::*;

    #[tokio::test]
    async fn before_each_turn_whoever_has_something_to_read_is_served() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (mut hears, says) = UnixStream::pair().unwrap();
        says.writable().await.unwrap();
        let (says, reads) = (Arc::new(says), Arc::clone(&told));
        let reader = tokio::spawn(async move {
            while hears.read_u8().await.is_ok() {
                reads.lock().unwrap().push("read");
            }
        });
        for _ in 0..3 {
            let (told, says) = (Arc::clone(&told), Arc::clone(&says));
            tokio::spawn(async move {
                let _turn = next().await;
                told.lock().unwrap().push("turn");
                says.try_write(b"x").unwrap();
            });
        }
        drop(says);
        reader.await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["turn", "read", "turn", "read", "turn", "read"]);
    }
}
