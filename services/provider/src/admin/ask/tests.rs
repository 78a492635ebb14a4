//! An admin app that lies, over a real socket.

#![allow(clippy::unwrap_used)]

use nexushub_chassis::names::Zone;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::*;

struct Liar {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

impl Liar {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("proxy.http.sock")).unwrap();
        Self { folder, listener }
    }

    fn client(&self) -> Proxied {
        let way = Way {
            socket: self.folder.path().join("proxy.http.sock"),
            bearer: HeaderValue::from_static("Bearer token"),
            instance: HeaderValue::from_static("the-admin"),
        };
        Proxied::new(way, Judge { zone: Zone::new("b", 8443), root: None })
    }

    /// Gives each connection its answers, one for each request, and closes it; what was asked is handed back.
    fn says(self, connections: Vec<Vec<Vec<u8>>>) -> JoinHandle<Vec<String>> {
        tokio::spawn(async move {
            let Self { folder: _folder, listener } = self;
            let mut asked = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    asked.push(head(&mut stream).await);
                    let _ = stream.write_all(&answer).await;
                }
            }
            asked
        })
    }
}

async fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
    String::from_utf8(head).unwrap()
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const LIST: &str = r#"{"applications":[{"instanceId":"a","appId":"a","displayName":"A","hostName":"a"}]}"#;

#[tokio::test]
async fn it_asks_as_the_contract_has_it_over_one_connection() {
    let liar = Liar::new();
    let mut admin = liar.client();
    let answers = vec![
        answer("200 OK", LIST),
        answer("200 OK", r#"{"id":7,"version":"1"}"#),
        b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
    ];
    let asked = liar.says(vec![answers]);
    assert_eq!(admin.list().await.unwrap().entries.len(), 1);
    assert_eq!(admin.changes(1).await.unwrap(), Heard::Last(7));
    assert_eq!(admin.changes(8).await.unwrap(), Heard::Unchanged);
    let asked = asked.await.unwrap();
    assert!(asked[0].starts_with("GET /api/applications HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[2].starts_with("GET /api/poll?e=8 HTTP/1.1\r\n"), "{}", asked[2]);
    for line in
        ["authorization: Bearer token", "x-application-id: the-admin", "content-type: application/json"]
    {
        assert!(asked.iter().all(|head| head.contains(&format!("{line}\r\n"))), "{line}: {asked:?}");
    }
}

#[tokio::test]
async fn every_lie_is_an_error_and_the_next_call_begins_anew() {
    let truncated = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{LIST}").into_bytes();
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; LIST_BYTES + 1]].concat();
    let lies = vec![
        answer("500 Internal Server Error", "it\u{7} broke"),
        answer("302 Found", ""),
        answer("304 Not Modified", ""),
        answer("200 OK", "<html>"),
        answer("200 OK", r#"{"applications":{}}"#),
        b"garbage\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        truncated,
        endless,
        Vec::new(),
    ];
    let liar = Liar::new();
    let mut admin = liar.client();
    let count = lies.len();
    // A connection for each: after a whole answer it may still be open, and then the next call finds out.
    let connections = lies.into_iter().map(|lie| vec![lie]).chain([vec![answer("200 OK", LIST)]]);
    let asked = liar.says(connections.collect());
    for number in 0..count {
        admin.open = None;
        let error = admin.list().await.unwrap_err().told();
        assert!(!error.contains(char::is_control), "{number}: {error:?}");
    }
    admin.open = None;
    assert_eq!(admin.list().await.unwrap().entries.len(), 1);
    assert_eq!(asked.await.unwrap().len(), count + 1);
}

/// As the admin app's own limits have it: `names.rs` and `events.rs` there.
fn greatest() -> String {
    let (app, name) = ("a".repeat(128), "\u{1f3e0}".repeat(128));
    let labels = ["h".repeat(60), "h".repeat(60), "h".repeat(60), "h".repeat(60)].join(".");
    let row = |number: usize| {
        let (id, host) = (format!("{number:064}"), format!("{number:05}.{labels}"));
        serde_json::json!({
            "instanceId": id, "appId": app, "displayName": name, "hostName": host, "signIn": false,
        })
    };
    serde_json::json!({ "applications": (0..list::APPLICATIONS_MAX).map(row).collect::<Vec<_>>() })
        .to_string()
}

#[tokio::test]
async fn the_greatest_list_that_the_admin_app_can_make_is_read() {
    let liar = Liar::new();
    let (mut admin, list) = (liar.client(), greatest());
    assert!(list.len() > 10_000_000, "{}", list.len());
    let asked = liar.says(vec![vec![answer("200 OK", &list)]]);
    let read = admin.list().await.unwrap();
    assert_eq!((read.entries.len(), read.refused), (list::APPLICATIONS_MAX, vec![]));
    asked.await.unwrap();
}

#[tokio::test]
async fn an_event_that_is_no_number_is_an_error() {
    let liar = Liar::new();
    let mut admin = liar.client();
    let lies =
        [r#"{"id":-1}"#, r#"{"id":"7"}"#, r#"{"version":"1"}"#, "7", "", &"x".repeat(ANSWER_BYTES + 1)];
    let asked = liar.says(lies.iter().map(|lie| vec![answer("200 OK", lie)]).collect());
    for lie in lies {
        admin.open = None;
        assert!(admin.changes(1).await.is_err(), "{lie:.20}");
    }
    asked.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let liar = Liar::new();
    let mut admin = liar.client();
    let closing =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{LIST}", LIST.len());
    let asked = liar.says(vec![vec![closing.into_bytes()], vec![answer("200 OK", LIST)]]);
    assert!(admin.list().await.is_ok());
    assert!(admin.list().await.is_ok());
    asked.await.unwrap();
}

#[tokio::test]
async fn only_an_end_of_the_connection_is_no_answer() {
    let liar = Liar::new();
    let mut admin = liar.client();
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec();
    let said = [Vec::new(), answer("500 Oh", ""), b"garbage\r\n\r\n".to_vec(), short, answer("200 OK", "?")];
    let asked = liar.says(said.into_iter().map(|said| vec![said]).collect());
    let mut broke_off = Vec::new();
    for _ in 0..5 {
        admin.open = None;
        broke_off.push(admin.changes(1).await.unwrap_err().broke_off());
    }
    assert_eq!(broke_off, [true, false, false, false, false]);
    asked.await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_an_error_and_no_hang() {
    let liar = Liar::new();
    let mut admin = liar.client();
    drop(liar);
    assert!(matches!(admin.list().await, Err(AskError::Connect { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_admin_app_that_never_answers_is_given_up_at_the_deadline() {
    let liar = Liar::new();
    let mut admin = liar.client();
    assert!(matches!(admin.list().await, Err(AskError::Late(LIST_DEADLINE))));
    assert!(matches!(admin.changes(1).await, Err(AskError::Late(CHANGES_DEADLINE))));
    assert!(admin.open.is_none());
}
