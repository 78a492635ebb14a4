//! Somebody develops an app: makes one from nothing, has it built and run again and again, and leaves nothing behind.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use nexushub_e2e::{
    HANG, Options, Platform, Process, Signal,
    lines::Lines,
    soon,
    terminal::Terminal,
    workshop::{nexushub, program},
};
use tungstenite::Message;

use crate::websockets;

/// An app from a template, in a folder below the platform's home.
fn made(platform: &Platform, name: &str, template: &str) -> std::path::PathBuf {
    let made = nexushub(platform.home.path(), &["init", name, "--template", template]);
    assert!(made.status.success(), "{made:?}");
    platform.home.path().join(name)
}

/// What an app says at `/`; none while it isn't there.
async fn page(platform: &Platform, host: &str) -> Option<String> {
    let answer = platform.https().get(host, "/").await;
    (answer.status == 200).then(|| answer.text())
}

/// Waits until an app says this at `/`: the proxy hears of a new generation a moment after procmgr tells of it.
async fn says(platform: &Platform, host: &str, text: &str) {
    let said = async { while page(platform, host).await.as_deref() != Some(text) {} };
    soon(text, said).await;
}

async fn is_gone(platform: &Platform, host: &str) {
    let gone = |all: &std::collections::BTreeMap<_, nexushub_proto::procmgr::InstanceStatus>| {
        all.values().all(|one| one.host_name != host)
    };
    platform.instances_until(&format!("nothing is at {host}"), gone).await;
}

fn greet(folder: &Path, with: &str) {
    let path = folder.join("app.c");
    let source = fs::read_to_string(&path).unwrap();
    let (before, after) = source.split_once("return \"Hello").unwrap();
    let (_, after) = after.split_once("\\n\";").unwrap();
    fs::write(&path, format!("{before}return \"Hello {with}\\n\";{after}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_from_each_template_builds_offline_links_statically_and_answers() {
    let platform = Platform::start();
    for template in ["rust", "c"] {
        let name = format!("from-{template}");
        let folder = made(&platform, &name, template);
        let mut build = Command::new("./build");
        let built = build.current_dir(&folder).env("CARGO_NET_OFFLINE", "true").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let app = folder.join("package/bin/app");
        assert!(
            !fs::read(&app).unwrap().windows(10).any(|bytes| bytes == b"/ld-linux-"),
            "{template}: linked statically"
        );
        let package = folder.join("package").display().to_string();
        let pushed = nexushub(platform.home.path(), &["push", &package, "--name", &name]);
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        says(&platform, &name, &format!("Hello from {name}\n")).await;
    }
    let again = nexushub(platform.home.path(), &["init", "from-c"]);
    assert_eq!(again.status.code(), Some(1), "nothing is written over");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_a_changed_file_is_built_and_pushed_and_sigterm_cleans_up() {
    let platform = Platform::start();
    let folder = made(&platform, "shop", "c");
    let mut dev = Command::new(program("nexushub"));
    dev.arg("--home").arg(platform.home.path()).args(["dev", "--watch"]).current_dir(&folder);
    let mut dev = dev.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (process, said) = (Process::open(dev.id()).unwrap(), Lines::of(dev.stderr.take().unwrap()));
    let until = |text: &str| said.until(text, |line| line.contains(text).then(|| line.to_owned()));
    let line = until("answers");
    assert!(
        line.contains("https://shop-dev.") && line.contains("build ") && line.contains("push "),
        "{line}"
    );
    says(&platform, "shop-dev", "Hello from shop\n").await;
    greet(&folder, "again");
    until("answers");
    says(&platform, "shop-dev", "Hello again\n").await;
    fs::write(folder.join("app.c"), "no C").unwrap();
    until("failed");
    assert_eq!(
        page(&platform, "shop-dev").await.unwrap(),
        "Hello again\n",
        "a build that fails changes nothing"
    );
    process.signal(Signal::TERM);
    until("shop-dev is removed");
    assert!(process.ended_within(HANG));
    assert_eq!(dev.wait().unwrap().code(), Some(0));
    is_gone(&platform, "shop-dev").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_somebody_else_removed_is_pushed_anew_and_its_log_goes_on() {
    let platform = Platform::start();
    let folder = made(&platform, "shop", "c");
    let mut dev = Command::new(program("nexushub"));
    dev.arg("--home").arg(platform.home.path()).args(["dev", "--watch"]).current_dir(&folder);
    let mut dev = dev.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (log, said) = (Lines::of(dev.stdout.take().unwrap()), Lines::of(dev.stderr.take().unwrap()));
    let shown = |lines: &Lines, text: &str| lines.until(text, |line| line.contains(text).then_some(()));
    shown(&said, "answers");
    shown(&log, "listens on port");
    let developer = platform.developer();
    let id = developer.list().await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(developer.delete(&id).await.status, 204);
    is_gone(&platform, "shop-dev").await;
    greet(&folder, "anew");
    shown(&said, "answers");
    shown(&log, "listens on port");
    says(&platform, "shop-dev", "Hello anew\n").await;
    Process::open(dev.id()).unwrap().signal(Signal::TERM);
    shown(&said, "shop-dev is removed");
    assert_eq!(dev.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_r_builds_again_q_ends_and_the_terminal_is_as_it_was() {
    let platform = Platform::start();
    let folder = made(&platform, "shop", "c");
    let mut terminal = Terminal::start(platform.home.path(), &folder, &["dev"]);
    terminal.shows("r builds and pushes again");
    terminal.shows("listens on port");
    terminal.shows("answers");
    greet(&folder, "anew");
    terminal.press("xr");
    terminal.shows("answers");
    says(&platform, "shop-dev", "Hello anew\n").await;
    terminal.press("q");
    terminal.shows("shop-dev is removed");
    assert_eq!(terminal.end().code(), Some(0));
    is_gone(&platform, "shop-dev").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_ends_a_build_and_removes_the_app() {
    let platform = Platform::start();
    let folder = made(&platform, "shop", "c");
    let terminal = Terminal::start(platform.home.path(), &folder, &["dev"]);
    terminal.shows("answers");
    let process = terminal.hang_up();
    soon("the app is removed", is_gone(&platform, "shop-dev")).await;
    assert!(process.ended_within(HANG));
}

/// A front end's development server: it says which page was asked for, and on a WebSocket what it is told. Where it is.
fn front_end() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

fn serve(mut stream: TcpStream) {
    let mut seen = [0; 4096];
    let length = loop {
        let Ok(length @ 1..) = stream.peek(&mut seen) else { return };
        if seen[..length].windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            break length;
        }
    };
    let head = String::from_utf8_lossy(&seen[..length]).to_ascii_lowercase();
    if head.contains("upgrade: websocket") {
        let mut socket = tungstenite::accept(stream).unwrap();
        while let Ok(message) = socket.read() {
            if socket.send(message).is_err() {
                return;
            }
        }
        return;
    }
    let _ = stream.read(&mut seen);
    let page = format!("the front end's {}", head.split(' ').nth(1).unwrap());
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_ends_server_answers_pages_and_websockets_and_the_app_what_is_its_own() {
    let port = front_end();
    let platform =
        Platform::start_with(&Options::with(&format!("[debug-api]\nstatic_ports = [\"{port}\"]\n")));
    let folder = made(&platform, "shop", "c");
    let url = format!("http://localhost:{port}");
    let mut dev = Command::new(program("nexushub"));
    dev.arg("--home").arg(platform.home.path()).args(["dev", "--static-url", &url]).current_dir(&folder);
    let mut dev = dev.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (process, told) = (Process::open(dev.id()).unwrap(), Lines::of(dev.stderr.take().unwrap()));
    told.until("answers", |line| line.contains("answers").then_some(()));
    says(&platform, "shop-dev", "the front end's /").await;
    let own = platform.https().get("shop-dev", "/public/carts").await;
    assert_eq!((own.status.as_u16(), own.text()), (404, "there is nothing here\n".to_owned()));
    let mut socket = websockets::ask_of(&platform, "shop-dev", "/hot").unwrap();
    for text in ["changed", "again"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    process.signal(Signal::TERM);
    told.until("its end", |line| line.contains("shop-dev is removed").then_some(()));
    assert_eq!(dev.wait().unwrap().code(), Some(0));
}
