//! A machine and an internet for one story, made of two networks of its own: no address, rule or route of the real machine is
//! touched, and all is gone with the story's threads and processes. It takes root.
//!
//! ```text
//! the story's thread, its platform and boxes ── up0 192.0.2.2, .3 ──── 192.0.2.1 net0 ── 203.0.113.80, .53 and 169.254.169.254
//! ```

use std::{
    cell::RefCell,
    fs::{self, File},
    io::Write,
    net::{TcpListener, UdpSocket},
    os::fd::AsRawFd,
    panic::resume_unwind,
    process::{self, Command},
    sync::mpsc::channel,
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

/// An address of the internet, which tells on port 80 who came.
pub const INTERNET: &str = "203.0.113.80";
/// What every name of this internet means.
const MEANING: [u8; 4] = [203, 0, 113, 80];
/// The machine's own resolver, as its administrator says it.
const RESOLVERS: &str = "nameserver 127.0.0.53\nnameserver 203.0.113.53\n";

thread_local! {
    /// The network of the internet, for the thread that tells the story.
    static THERE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// A program that is to run on the internet, at the addresses that it has there. For the story's own thread.
///
/// # Panics
/// When there is no world.
#[must_use]
pub fn there(program: &str) -> Command {
    let network = THERE.with_borrow(|network| network.as_ref().expect("a world").as_raw_fd());
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/fd/{network}", process::id())).arg(program);
    command
}

/// Tells a story whose threads are all in a world of its own. Where the rights for that are missing it says so and tells nothing.
///
/// # Panics
/// When the story does.
pub fn tell<F: Future<Output = ()>>(story: impl FnOnce() -> F + Send + 'static) {
    if !geteuid().is_root() {
        crate::machine::untold("networks of its own take root");
        return;
    }
    let told = thread::spawn(move || {
        make();
        // Its workers are made by this thread, and so they are where it is.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(story());
    });
    told.join().unwrap_or_else(|panic| resume_unwind(panic));
}

/// What a command of the machine's administrator says.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn admin(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn make() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let mut resolvers = tempfile::NamedTempFile::new().unwrap();
    resolvers.write_all(RESOLVERS.as_bytes()).unwrap();
    let file = resolvers.path().display();
    drop(admin(&format!(
        "mount --make-rprivate / && mount --bind {file} /etc/resolv.conf && ip link set lo up"
    )));
    let internet = internet();
    let pair = ["link", "add", "up0", "type", "veth", "peer", "name", "net0", "netns", "/proc/self/fd/0"];
    let network = internet.network.try_clone().unwrap();
    let added = Command::new("ip").args(pair).stdin(network).status().unwrap();
    assert!(added.success());
    for line in [
        "ip address add 192.0.2.2/24 dev up0",
        "ip address add 192.0.2.3/24 dev up0",
        "ip link set up0 up",
        "ip route add default via 192.0.2.1",
    ] {
        drop(admin(line));
    }
    internet.begin.send(()).unwrap();
    internet.begun.recv().unwrap();
    THERE.set(Some(internet.network));
}

struct Internet {
    network: File,
    begin: std::sync::mpsc::Sender<()>,
    begun: std::sync::mpsc::Receiver<()>,
}

/// Threads that stay with the test's process.
fn internet() -> Internet {
    let ((tell_network, network), (begin, begins)) = (channel(), channel());
    let (tell_begun, begun) = channel();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tell_network.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        begins.recv().unwrap();
        for line in [
            "ip address add 192.0.2.1/24 dev net0",
            "for a in 203.0.113.80 203.0.113.53 169.254.169.254; do ip address add $a/32 dev lo; done",
            "ip link set lo up && ip link set net0 up",
        ] {
            drop(admin(line));
        }
        let (web, names) =
            (TcpListener::bind("0.0.0.0:80").unwrap(), UdpSocket::bind("203.0.113.53:53").unwrap());
        thread::spawn(move || answer_names(&names));
        tell_begun.send(()).unwrap();
        for visitor in web.incoming() {
            let mut visitor = visitor.unwrap();
            let from = visitor.peer_addr().unwrap().ip();
            let _ = writeln!(visitor, "{from}"); // who leaves early learns nothing
        }
    });
    Internet { network: network.recv().unwrap(), begin, begun }
}

/// Says of every name that it means the one address.
fn answer_names(socket: &UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let name_end = 12 + question[12..length].iter().position(|byte| *byte == 0).unwrap_or(0);
        let mut answer = question[..(name_end + 5).min(length)].to_vec();
        let is_address = question.get(name_end + 2) == Some(&1);
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
        if is_address {
            answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(MEANING);
        }
        let _ = socket.send_to(&answer, from);
    }
}

/// The names of this world's interfaces that lead to boxes.
///
/// # Panics
/// When they can't be listed.
#[must_use]
pub fn links() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.filter(|name| name.starts_with("nh")).map(str::to_owned).collect()
}
