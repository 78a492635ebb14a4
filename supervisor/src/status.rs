//! `$RUN/status.json`: what people and their tools see of the platform. Replaced in one step whenever it changes.

use std::{fs, io, path::Path};

use nexushub_launch::clock::{start_time, unix_ms};
use nexushub_launch::json::{Object, array, quote};

use crate::{supervisor::Supervisor, unit::Unit};

pub(crate) fn render(supervisor: &Supervisor) -> String {
    let (config, pid) = (&supervisor.site.config, std::process::id());
    let listen = supervisor.sockets.iter().filter(|socket| socket.name == "https");
    let listen: Vec<_> = listen.map(|socket| quote(&socket.address)).collect();
    let path = config.path.as_ref().map_or("null".to_owned(), |path| quote(&path.to_string_lossy()));
    let daemons: Vec<_> = supervisor.units.iter().map(daemon).collect();
    let own = Object::new()
        .number("pid", pid)
        .number("start_time", start_time(pid).unwrap_or(0))
        .number("since_unix_ms", unix_ms(supervisor.phase.1))
        .text("release", env!("CARGO_PKG_VERSION"))
        .text("state", supervisor.phase.0)
        .raw("listen", &array(&listen))
        .text("root", &config.root.to_string_lossy())
        .raw("config", &path)
        .number("strangers", supervisor.strangers);
    Object::new().raw("supervisor", &own.finish()).raw("daemons", &array(&daemons)).finish()
}

fn daemon(unit: &Unit) -> String {
    let pid = unit.current().map(|current| current.pid.as_raw().unsigned_abs());
    let started = pid.and_then(|pid| start_time(pid).ok());
    let ready = unit.current().and_then(|current| current.ready).map(unix_ms);
    let or_null = |number: Option<i128>| number.map_or("null".to_owned(), |number| number.to_string());
    Object::new()
        .text("name", unit.daemon.name)
        .text("state", unit.shown.0)
        .raw("pid", &or_null(pid.map(Into::into)))
        .raw("start_time", &or_null(started.map(Into::into)))
        .number("since_unix_ms", unix_ms(unit.shown.1))
        .raw("ready_unix_ms", &or_null(ready.map(Into::into)))
        .number("restarts", unit.restarts.total)
        .text("executable", unit.build.mark.split(") [").next().unwrap_or_default())
        .text("status", &unit.status)
        .text("reason", &unit.reason)
        .finish()
}

/// Replaces a file that need not survive a crash of the machine.
pub(crate) fn replace(path: &Path, content: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}
