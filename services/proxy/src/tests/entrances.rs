//! Apps in boxes that call: their listeners come from shims that speak the control protocol and have no box behind them.

use std::{
    io::{BufRead, BufReader, IoSlice},
    os::{fd::AsRawFd, unix::net},
    path::Path,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::*;
use crate::{
    table::{
        Endpoint, State,
        tests::{idle, running},
    },
    wellknown::LOGIN,
};

/// A shim's control socket, answering for as long as the test lives; and where the app of its box finds the platform.
struct Shim {
    socket: PathBuf,
    inward: SocketAddr,
}

impl Shim {
    fn start(folder: &Path, name: &str) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (socket, inward) = (folder.join(name), listener.local_addr().unwrap());
        let control = net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for peer in control.incoming().flatten() {
                let mut request = String::new();
                BufReader::new(&peer).read_line(&mut request).unwrap();
                assert_eq!(request, "listener\n");
                let (reply, sockets) = ([IoSlice::new(b"listening\n")], [listener.as_raw_fd()]);
                let rights = [ControlMessage::ScmRights(&sockets)];
                // Who asked may have gone away meanwhile.
                let _ = sendmsg::<()>(peer.as_raw_fd(), &reply, &rights, MsgFlags::MSG_NOSIGNAL, None);
            }
        });
        Self { socket, inward }
    }

    /// The app in its box, in this generation.
    fn entry(&self, id: &str, generation: u64) -> Entry {
        Entry {
            generation,
            endpoint: Some(Endpoint::Shim(self.socket.clone())),
            ..idle(id, id, State::Starting, "new")
        }
    }

    /// A connection out of the box.
    async fn client(&self, hub: &Hub) -> Peer {
        Peer::new(hub.connect_to(self.inward, &[b"http/1.1"], "internal.yesterday.localhost").await)
    }

    /// What one request out of the box is answered.
    async fn ask(&self, hub: &Hub, request: &str) -> Message {
        let mut client = self.client(hub).await;
        client.write(request).await;
        client.message().await
    }
}

/// A call of another app by its id.
fn call(path: &str, to: &str, secret_of: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: internal.yesterday.localhost:8443\r\nX-Application-Id: {to}\r\n\
         Authorization: Bearer secret of {secret_of}\r\nX-Caller-Id: somebody\r\n\r\n"
    )
}

#[tokio::test]
async fn an_app_in_a_box_calls_another_which_is_told_who_calls_and_not_the_secret() {
    let (backend, hub) = (Backend::start().await, Hub::start(calm()).await);
    let shim = Shim::start(hub.folder.path(), "shim");
    hub.route(vec![shim.entry("caller", 1), running("h1", "hello", backend.port)]);
    let mut client = shim.client(&hub).await;
    client.write(&call("/public/x", "h1", "caller")).await;
    let mut app = backend.accept().await;
    let request = app.head().await;
    assert!(request.has("x-caller-id: caller") && request.has("x-application-id: h1"), "{}", request.head);
    assert!(!request.head.contains("secret") && !request.head.contains("somebody"), "{}", request.head);
    app.write(OK).await;
    assert_eq!(client.message().await.body, "ok");
    hub.until(|counters| counters.inward_connections_open.get(), 1).await;
}

#[tokio::test]
async fn a_caller_named_by_a_stranger_is_not_passed_on() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&format!("GET /public/x HTTP/1.1\r\nHost: {HOST}\r\nX-Caller-Id: admin\r\n\r\n")).await;
    let request = backend.accept().await.head().await;
    assert!(request.field("x-caller-id").is_none(), "{}", request.head);
}

#[tokio::test]
async fn a_secret_counts_only_out_of_its_own_box() {
    let hub = Hub::start(calm()).await;
    let (one, two) = (Shim::start(hub.folder.path(), "one"), Shim::start(hub.folder.path(), "two"));
    hub.route(vec![one.entry("one", 1), two.entry("two", 1), idle("h1", "hello", State::Failed, "")]);
    assert_eq!(
        one.ask(&hub, &call("/public/x", "h1", "one")).await.status(),
        503,
        "it may, and hello is down"
    );
    assert_eq!(one.ask(&hub, &call("/public/x", "h1", "two")).await.status(), 401);
    assert_eq!(two.ask(&hub, &call("/public/x", "h1", "two")).await.status(), 503);
    assert_eq!(two.ask(&hub, &call("/internal/x", "h1", "two")).await.status(), 403);
    let answer = two.ask(&hub, &get("/debug/application")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (404, "Not Found\n"));
}

#[tokio::test]
async fn an_app_signs_nobody_in_and_is_nobodys_trusted_proxy() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let config =
        Config { trusted_proxies: trusted_proxies.clone(), proxy_protocol_from: trusted_proxies, ..calm() };
    let (backend, hub) = (Backend::start().await, Hub::start(config).await);
    let shim = Shim::start(hub.folder.path(), "shim");
    hub.route(vec![
        shim.entry("caller", 1),
        running(LOGIN, "login", backend.port),
        running("h1", "hello", backend.port),
    ]);
    for path in ["/signin", "/password"] {
        let guess = call(path, LOGIN, "caller").replacen("GET", "POST", 1);
        assert_eq!(shim.ask(&hub, &guess).await.status(), 403, "{path}");
    }
    let mut client = shim.client(&hub).await; // without the PROXY protocol, which it may not speak
    client.write(&call("/public/x", "h1", "caller").replace("X-Caller-Id", "X-Forwarded-For")).await;
    let request = backend.accept().await.head().await;
    assert_eq!((request.field("x-forwarded-for"), request.field("x-real-ip")), (Some("127.0.0.1"), None));
}

#[tokio::test]
async fn a_generation_that_left_the_table_has_its_entrance_closed_and_the_next_one_its_own() {
    let hub = Hub::start(Config { drain_idle_ms: 1, ..calm() }).await;
    let (first, second) = (Shim::start(hub.folder.path(), "1"), Shim::start(hub.folder.path(), "2"));
    hub.route(vec![first.entry("app", 1)]);
    let mut kept = first.client(&hub).await;
    hub.route(vec![second.entry("app", 2)]);
    assert!(!kept.fill().await, "its quiet connection is closed");
    assert_eq!(second.ask(&hub, &get("/debug/")).await.status(), 404);
    hub.until(|counters| counters.inward_listeners_open.get(), 1).await;
    hub.change(Change::Removed("app".into()));
    hub.until(|counters| counters.inward_listeners_open.get(), 0).await;
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_asked_until_it_does() {
    let hub = Hub::start(calm()).await;
    let late = hub.folder.path().join("late");
    let entry =
        Entry { endpoint: Some(Endpoint::Shim(late.clone())), ..idle("app", "app", State::Starting, "new") };
    std::fs::write(&late, "a file where its socket should be").unwrap();
    hub.route(vec![entry]);
    tokio::task::yield_now().await;
    std::fs::remove_file(&late).unwrap();
    let shim = Shim::start(hub.folder.path(), "late");
    assert_eq!(shim.ask(&hub, &get("/debug/")).await.status(), 404);
}

#[tokio::test]
async fn two_generations_of_the_proxy_hold_one_entrance_and_the_one_that_drains_lets_go() {
    let (old, new) = (Hub::start(calm()).await, Hub::start(calm()).await);
    let shim = Shim::start(old.folder.path(), "shim");
    for hub in [&old, &new] {
        hub.route(vec![shim.entry("app", 1)]);
        hub.until(|counters| counters.inward_listeners_open.get(), 1).await;
    }
    old.drain.cancel();
    old.until(|counters| counters.inward_listeners_open.get(), 0).await;
    for _ in 0..5 {
        assert_eq!(shim.ask(&new, &get("/debug/")).await.status(), 404);
    }
    assert_eq!(new.proxy.counters.connections_accepted.get(), 5);
}

#[tokio::test]
async fn a_greedy_box_takes_neither_the_places_of_the_front_nor_of_another_box() {
    let backend = Backend::start().await;
    let few =
        Config { max_connections: 1, inward_connections_per_app: 2, inward_requests_per_app: 1, ..calm() };
    let hub = Hub::start(few).await;
    let (greedy, modest) = (Shim::start(hub.folder.path(), "g"), Shim::start(hub.folder.path(), "m"));
    hub.route(vec![greedy.entry("g", 1), modest.entry("m", 1), running("h1", "hello", backend.port)]);
    let mut held = [greedy.client(&hub).await, greedy.client(&hub).await];
    let mut third = Peer::new(TcpStream::connect(greedy.inward).await.unwrap());
    assert!(!third.fill().await, "closed at once");
    hub.until(|counters| counters.inward_refused.get(), 1).await;
    held[0].write(&call("/public/slow", "h1", "g")).await;
    let mut slow = backend.accept().await;
    slow.head().await;
    held[1].write(&call("/public/x", "h1", "g")).await;
    let refused = held[1].message().await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    assert_eq!(modest.ask(&hub, &get("/debug/")).await.status(), 404);
    let mut outside = hub.client().await;
    outside.write(&get("/public/x")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(outside.message().await.status(), 200);
}
