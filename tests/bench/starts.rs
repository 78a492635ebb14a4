//! What a box costs a start by itself: from the exec of the program that builds it to the first 200 of the app in it, beside the exec
//! of the app as a bare process. The network that a shim makes before is there already, and what procmgr does before and after is not
//! in it either (`boxes.rs`).

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nexushub_e2e::{HANG, workshop};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use crate::boxes::{spread, thousandth};

/// The first user id of the box, far from those of a platform.
const UID: &str = "1000000";
/// As an instance without bounds of its own has them.
const BOUNDS: [&str; 6] = ["--data-bytes", "1073741824", "--tmp-bytes", "67108864", "--open-files", "1024"];

/// Of both in turns, so many.
pub(crate) fn measure(rounds: usize) {
    println!(
        "## start, from exec to the first 200, in ms: p50, p99, of {rounds}; the network of the box is there before"
    );
    if !geteuid().is_root() {
        println!("not measurable here: needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for folder in ["release/bin", "data"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    fs::copy(workshop::program("nexushub-hello"), home.path().join("release/bin/app")).unwrap();
    let (mut bare, mut boxed) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // A thread of its own: what it enters ends with it.
        let [one, other] = [alone, within]
            .map(|start| thread::scope(|scope| scope.spawn(|| start(home.path())).join().unwrap()));
        if round > 0 {
            bare.push(one); // the first makes the disk of the data and fills the page cache
            boxed.push(other);
        }
    }
    let (bare, boxed) = (spread(&mut bare), spread(&mut boxed));
    for (what, (middle, most)) in [
        ("bare process", bare),
        ("sandbox", boxed),
        ("more", (boxed.0 - bare.0, boxed.1.saturating_sub(bare.1))),
    ] {
        println!("{what:24} {:>8.1} {:>8.1}", thousandth(middle), thousandth(most));
    }
}

fn alone(home: &Path) -> Duration {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let mut app = Command::new(home.join("release/bin/app"));
    first_answer(app.env_clear().env("NEXUSHUB_DATA", home.join("data")), port, began)
}

fn within(home: &Path) -> Duration {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").unwrap(); // of this network
    let began = Instant::now();
    unshare(CloneFlags::CLONE_NEWPID).unwrap();
    let mut sandbox = Command::new(workshop::program("nexushub-sandbox"));
    sandbox.arg("--release").arg(home.join("release")).arg("--data").arg(home.join("data"));
    sandbox.args(["--uid", UID]).args(BOUNDS).args(["--hostname", "start", "--", "/app/bin/app"]);
    first_answer(sandbox.env_clear().env("NEXUSHUB_DATA", "/db"), 80, began)
}

/// Starts it, asks until it answers, and ends it.
fn first_answer(command: &mut Command, port: u16, began: Instant) -> Duration {
    command.env("PORT", port.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    while !answers(port) {
        assert!(began.elapsed() < HANG && child.try_wait().unwrap().is_none(), "it has not answered");
        thread::yield_now();
    }
    let took = began.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

fn answers(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /api/status HTTP/1.1\r\nhost: start\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
