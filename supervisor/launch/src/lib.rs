//! What passes from parent to child in NexusHub, and nothing else: which daemons there are, the environment they are
//! started with, inherited sockets, credentials, readiness messages, locks, the configuration file, and durable files.
//!
//! The supervisor is the parent in a development tree; systemd is when the daemons run as units. Both speak the same
//! protocols (`LISTEN_FDS`, `NOTIFY_SOCKET`, `CREDENTIALS_DIRECTORY`), so a daemon can't tell them apart.
//! Invariant: only std, nix and small pure crates; no threads, no async runtime.

pub mod clock;
pub mod config;
pub mod daemon;
pub mod durable;
pub mod fault;
pub mod fds;
pub mod handoff;
pub mod json;
pub mod lock;
pub mod notify;
pub mod secret;

pub use fault::Fault;
