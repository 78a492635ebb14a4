//! The word to stop: SIGTERM or SIGINT begins the drain, and whoever has something to finish watches for it.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// A handle on the drain; clones see the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    draining: watch::Receiver<bool>,
}

impl Shutdown {
    /// Listens for the signals on a task of its own.
    ///
    /// # Errors
    /// When the process can't listen for signals.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let (begin, draining) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            begin.send_replace(true);
            begin.closed().await; // keep the value readable for as long as anybody looks
        });
        Ok(Self { draining })
    }

    /// A handle that whoever holds the sender begins to drain: for tests of a daemon's parts.
    #[must_use]
    pub fn by_hand() -> (watch::Sender<bool>, Self) {
        let (begin, draining) = watch::channel(false);
        (begin, Self { draining })
    }

    /// Resolves once the drain has begun.
    pub async fn draining(&self) {
        let mut draining = self.draining.clone();
        // An error means that the sender is gone, as at the end of the runtime: that is a drain too.
        let _ = draining.wait_for(|draining| *draining).await;
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}
