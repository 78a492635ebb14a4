//! A whole platform per test, with real processes: started in a folder of its own below `/tmp`, talked to as people and apps
//! talk to it, and gone without a trace when the test ends, however it ends.
//!
//! The programs are taken from `NEXUSHUB_BIN_DIR`, or from where cargo put them beside the test. A wait reads state again
//! whenever it changed (`status.json`, `WatchInstances`, a log pipe, a pidfd); its deadline is there for hangs only.
//!
//! Invariants: no test waits for time to pass; nothing of a platform outlives its [`Platform`], and what would have is a
//! failure; no log line of any process speaks of a panic.

#![allow(clippy::unwrap_used, clippy::panic)] // a harness fails by panicking: the test's name and the message say where

pub mod accounts;
pub mod admin;
pub mod app;
pub mod board;
pub mod flood;
pub mod grpc;
pub mod home;
pub mod https;
pub mod journal;
pub mod lines;
pub mod load;
pub mod machine;
pub mod noise;
pub mod package;
pub mod platform;
pub mod processes;
pub mod raw;
pub mod shell;
pub mod terminal;
pub mod traces;
pub mod upload;
pub mod workshop;
pub mod world;

pub use admin::Admin;
pub use app::App;
pub use https::{Answer, Connection, Failure, Https, Protocol};
pub use load::{Load, Tally};
pub use platform::{FORGIVING, Options, Platform, UNHURRIED};
pub use processes::{Process, Signal};
pub use traces::Traces;

use std::time::Duration;

/// How long anything may take before a test counts it as hung.
pub const HANG: Duration = Duration::from_secs(180);

/// How often is looked for what nothing tells of.
const LOOK: Duration = Duration::from_millis(5);

/// The daemons of a platform.
pub const DAEMONS: [&str; 4] = ["provider", "procmgr", "debug-api", "proxy"];

/// Waits for a future that must not take forever.
///
/// # Panics
/// When it does.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.unwrap_or_else(|_| panic!("hung: {what}"))
}

/// Waits for what nothing tells of, such as a file of a daemon's: looks again and again, and gives the first that it sees.
///
/// # Panics
/// When it never sees any.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut again = tokio::time::interval(LOOK);
    soon(what, async {
        loop {
            again.tick().await;
            if let Some(seen) = look() {
                return seen;
            }
        }
    })
    .await
}

/// How many rounds a story of many takes: `NEXUSHUB_SCALE`, or the few of an ordinary run.
#[must_use]
pub fn rounds(ordinary: usize) -> usize {
    std::env::var("NEXUSHUB_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(ordinary)
}

/// The same for a story of which the plan says how many rounds make it whole: so many as soon as there is a scale at all.
#[must_use]
pub fn rounds_up_to(ordinary: usize, whole: usize) -> usize {
    if rounds(0) == 0 { ordinary } else { whole }
}
