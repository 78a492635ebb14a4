//! What every daemon bolts on, so that a daemon's own crate holds only what it is for: the configuration file, JSON logs and
//! traces, the inherited sockets, gRPC over Unix sockets behind one stack of checks, lazy clients, readiness and drain.
//!
//! A daemon implements [`daemon::Daemon`]; [`daemon::main`] is its whole `main`.

pub mod client;
pub mod credentials;
pub mod daemon;
mod gate;
pub mod listeners;
pub mod ready;
pub mod retry;
pub mod serve;
pub mod setup;
pub mod shutdown;
mod telemetry;

pub use nexushub_launch as launch;
pub use nexushub_launch::Fault;
