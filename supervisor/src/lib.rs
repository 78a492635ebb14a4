//! The supervisor: starts the daemons of a platform, watches, restarts, replaces and stops them. It holds what must outlive
//! any of them (listeners, the start-up secret, descriptors they left with it) and does nothing else: no RPC, no TLS, no
//! thread. To its daemons it is a small systemd; to systemd it is a `Type=notify` service.
//!
//! ```text
//! args ─▶ site ─▶ check ─▶ sockets ─▶ supervisor ─┬─ unit, policy   what should happen (no system calls)
//!         where   --check   listeners  event loop ├─ child, inbox   what does: fork + exec, messages
//!                                                 ├─ roll, stop     SIGHUP, SIGTERM
//!                                                 └─ status, log    what people see
//! ```
//! Invariant: one thread, which sleeps until a signal, a message of a daemon or the next deadline wakes it.

mod args;
mod check;
mod child;
mod config;
mod inbox;
mod log;
mod policy;
mod roll;
mod site;
mod sockets;
mod status;
mod stop;
mod supervisor;
mod unit;

use std::{env, io::Write, process::ExitCode};

use nexushub_launch::{Fault, fault::EXIT_FAILURE, handoff::Handoff};

use crate::{site::Site, supervisor::Supervisor};

/// Does what the command line says; a fault becomes one JSON line and an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let code = run().unwrap_or_else(|fault| {
        log::raw(&fault.to_json_line("supervisor"));
        fault.exit
    });
    ExitCode::from(code)
}

fn run() -> Result<u8, Fault> {
    let (action, handoff) = args::read(env::args_os().skip(1), Handoff::from_env()?)?;
    let site = || Site::find(handoff);
    match action {
        "--help" => Ok(say(args::USAGE)),
        "--version" => Ok(say(concat!("nexushub-supervisor ", env!("CARGO_PKG_VERSION"), "\n"))),
        "--write-credentials" => site()?.write_credentials().map(|()| 0),
        "--forget-credentials" => site()?.forget_credentials().map(|()| 0),
        "--check" => site().and_then(|site| check::all(&site, &site.builds()?)),
        _ => Ok(Supervisor::start(site()?)?.map_or_else(|code| code, Supervisor::run)),
    }
}

/// Prints an answer; one that nobody can read is a failure.
fn say(text: &str) -> u8 {
    std::io::stdout().write_all(text.as_bytes()).map_or(EXIT_FAILURE, |()| 0)
}
