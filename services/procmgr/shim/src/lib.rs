//! The tiny parent of one generation of one app instance, and the formats it shares with the process manager.
//!
//! The binary `nexushub-shim` outlives procmgr: it starts the app, keeps its output as framed log segments, answers on a
//! control socket and writes down how the app ended. The library is the one home of what passes between the two:
//!
//! ```text
//! procmgr ── spec (fd 0, memory only) ──► shim ── fork, gate, exec ──► app
//!    │  ◄── record, exit, log/*.seg (files) ──┤ ◄── stdout, stderr (pipes) ──┘
//!    └───── shim.sock: status, stop, wait, kill ──►┘
//! ```
//! Invariant: no app runs without a completed record on disk, and no exit is told before it is on disk.

pub mod control;
mod document;
pub mod exit;
pub mod frame;
pub mod identity;
pub mod reader;
pub mod record;
pub mod segment;
pub mod spawn;
pub mod spec;
