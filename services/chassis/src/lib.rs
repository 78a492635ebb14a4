//! What every daemon bolts on, so that a daemon's own crate holds only what it is for: the configuration file, JSON logs and
//! traces, the inherited sockets, gRPC over Unix sockets behind one stack of checks, lazy clients, readiness and drain; and what
//! those share who read an app's log.
//!
//! A daemon implements [`daemon::Daemon`]; [`daemon::main`] is its whole `main`.

pub mod applog;
pub mod audit;
pub mod bounds;
pub mod client;
pub mod credentials;
pub mod daemon;
pub mod difference;
mod gate;
mod limits;
pub mod listeners;
pub mod names;
pub mod reach;
pub mod ready;
pub mod retry;
pub mod serve;
pub mod setup;
pub mod shutdown;
pub mod standing;
pub mod telemetry;
pub mod trace;
pub mod vital;

pub use nexushub_launch as launch;
pub use nexushub_launch::Fault;

/// An error with its causes, joined by colons; a cause whose text the error repeats isn't said twice.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    #[test]
    fn an_error_tells_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not connect")]
        struct Outer(#[source] io::Error);
        assert_eq!(super::chain(&Outer(io::Error::other("inner"))), "could not connect: inner");
        assert_eq!(
            super::chain(&io::Error::other(Outer(io::Error::other("inner")))),
            "could not connect: inner"
        );
    }
}
