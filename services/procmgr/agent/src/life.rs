//! The guest's life, in order:
//!
//! ```text
//! configuration ─► connection to the host, "hello" ─► file tree, loopback ─► app, "started"
//!   threads: heartbeat · orders (stop) · connections to the app
//! main thread: reaps; the app's main process ended ─► the rest is killed, files written ─► "code=N" ─► "bye" ─► reboot
//! ```
//! It never returns: a first process that ends is a kernel panic. The VMM ends with the reboot (and would not with a power-off).

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{io, path::Path, thread, time::Duration};

use nexushub_agent::word::{End, Order, Word};
use nexushub_agent::{APP_PORT, CONFIG, CONTROL_PORT, INWARD_PORT, config::Config, forward};
use nix::sys::{reboot::RebootMode, reboot::reboot, signal::Signal};
use nix::unistd::sync;

use crate::{app, control, control::Control, ground, wire};

/// How long the host may take to hear the end.
const BYE: Duration = Duration::from_secs(5);

/// Lives this guest's life.
pub(crate) fn live() -> ExitCode {
    // Without a connection there is nobody to tell: the host's deadline notices.
    if let Ok(socket) = wire::to_host(CONTROL_PORT)
        && let Ok(orders) = socket.try_clone()
    {
        let host = Control::new(socket);
        let (heard, bye) = channel();
        host.say(&Word::Hello);
        let last = match run(&host, orders, heard) {
            Ok(end) => Word::Ended(end),
            Err(error) => Word::Failed(error.to_string()),
        };
        farewell(&host, &last, &bye);
    }
    let _ = reboot(RebootMode::RB_AUTOBOOT);
    ExitCode::FAILURE
}

/// From the configuration to the end of the app's main process.
fn run(host: &Control, orders: File, bye: Sender<()>) -> io::Result<End> {
    let bytes = fs::read(Path::new("/").join(CONFIG))
        .map_err(|error| io::Error::other(format!("could not read the configuration: {error}")))?;
    let config = Config::decode(&bytes).map_err(io::Error::other)?;
    drop(bytes);
    let beating = host.clone();
    thread::spawn(move || beating.beat());
    let grace = Duration::from_millis(config.stop_ms);
    if config.args.is_empty() {
        thread::spawn(move || control::orders(orders, |order| obey(order, grace, &bye)));
        return Ok(End::Code(0));
    }
    let prepared = ground::lay(&config).and_then(|()| wire::loopback()).and_then(|()| inward());
    let prepared = prepared.and_then(|()| config.way_out.as_ref().map_or(Ok(()), wire::way_out));
    let prepared = prepared.and_then(|()| wire::listener(APP_PORT));
    // A stop that came before is still in the socket: it is obeyed when there is somebody to signal.
    let started = prepared.and_then(|listener| app::start(&config).map(|pid| (listener, pid)));
    thread::spawn(move || control::orders(orders, |order| obey(order, grace, &bye)));
    let (listener, main) = started?;
    host.say(&Word::Started);
    thread::spawn(move || forward::serve(|| wire::accept(&listener), || wire::to_app(APP_PORT)));
    loop {
        let (pid, end) = app::reap()?;
        if pid == main {
            return Ok(end);
        }
    }
}

/// What the app says to the platform's name goes to the host.
fn inward() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, INWARD_PORT))?;
    let accept = move || listener.accept().map(|(app, _)| File::from(OwnedFd::from(app)));
    thread::spawn(move || forward::serve(accept, || wire::to_host(INWARD_PORT.into())));
    Ok(())
}

fn obey(order: Order, grace: Duration, bye: &Sender<()>) {
    match order {
        Order::Stop => {
            app::signal(Signal::SIGTERM);
            thread::spawn(move || {
                thread::sleep(grace);
                app::signal(Signal::SIGKILL);
            });
        }
        Order::Bye => {
            let _ = bye.send(());
        }
    }
}

/// Kills what is left, so that nothing more is written, and tells the end when everything is on the host.
fn farewell(host: &Control, last: &Word, bye: &Receiver<()>) {
    app::signal(Signal::SIGKILL);
    while app::reap().is_ok() {}
    sync();
    host.say_last(last);
    let _ = bye.recv_timeout(BYE);
}
