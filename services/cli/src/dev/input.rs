//! What somebody who develops may want while an app runs: by keys, by signals, by a file that was changed.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::Receiver,
};

use super::keys::Keys;
use crate::failure::Failure;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Build and push.
    Again,
    /// End, and leave nothing behind.
    Quit,
}

/// Everything by which a wish may come.
pub(super) struct Input {
    keys: Option<Keys>,
    files: Option<Receiver<()>>,
    signals: [Signal; 3],
}

impl Input {
    pub(super) fn new(files: Option<Receiver<()>>) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("could not listen for signals: {error}"), ""))
        };
        let signals = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        Ok(Self { keys: Keys::listen(), files, signals })
    }

    /// Whether there is anything but signals: without, nobody will ever ask for another build.
    pub(super) fn is_attended(&self) -> bool {
        self.keys.is_some() || self.files.is_some()
    }

    /// What may be done, for people.
    pub(super) fn told(&self) -> &'static str {
        match (&self.keys, &self.files) {
            (Some(_), Some(_)) => "r builds and pushes again, so does a changed file; q ends and cleans up",
            (Some(_), None) => "r builds and pushes again; q ends and cleans up",
            (None, Some(_)) => "a changed file builds and pushes again; SIGINT or SIGTERM ends and cleans up",
            (None, None) => "SIGINT or SIGTERM ends and cleans up",
        }
    }

    /// The next wish. Nothing is lost when it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Wish {
        let Self { keys, files, signals: [interrupt, terminate, hangup] } = self;
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Wish::Quit,
                _ = terminate.recv() => return Wish::Quit,
                _ = hangup.recv() => return Wish::Quit,
                key = pressed(keys) => match key {
                    b'r' | b'R' => return Wish::Again,
                    b'q' | b'Q' | 4 => return Wish::Quit, // 4 = Ctrl-D
                    _ => {}
                },
                () = changed(files) => return Wish::Again,
            }
        }
    }
}

async fn pressed(keys: &mut Option<Keys>) -> u8 {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

async fn changed(files: &mut Option<Receiver<()>>) {
    if let Some(files) = files
        && files.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}
