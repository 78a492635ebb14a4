//! HTTP/1.1 as the standards say it, case by case: what a client or an app sends, and what has to become of it. Each case names
//! the clause that it is about (RFC 9110: semantics, RFC 9112: messages). Where a clause lets a recipient choose between
//! repairing and refusing, refusing is right here.

mod answers;
mod bodies;
mod cookies;
mod heads;
mod targets;

use super::*;

/// What has to become of what a client sends.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is answered with this status, no app hears of it, and the connection ends.
    Refused(u16),
    /// The same, but its body is what is wrong: the app hears its head and no end of its body.
    CutOff(u16),
    /// It is answered with this status, no app hears of it, and the connection goes on.
    Answered(u16),
    /// The app gets it with this first line and this body.
    Passed(&'static str, &'static str),
    /// The app gets these, one after another, by their first lines.
    Each(&'static [&'static str]),
    /// The app gets it with this first line, and the connection ends after the answer.
    Last(&'static str),
    /// The connection ends and nobody is told anything.
    Dropped,
}

/// The clause, what it is about, what the client sends (`{H}` stands for a good `Host` line), and its fate.
type Case = (&'static str, &'static str, &'static str, Fate);

const HOST_LINE: &str = "Host: hello.yesterday.localhost\r\n";

/// One proxy and one app for many cases.
struct Bench {
    hub: Hub,
    backend: Backend,
}

impl Bench {
    async fn start() -> Self {
        let backend = Backend::start().await;
        let config = Config { max_headers: 20, max_header_bytes: 8192, max_target_bytes: 1024, ..calm() };
        let hub = Hub::with(&backend, config).await;
        Self { hub, backend }
    }

    async fn judge(&self, case: &Case) {
        let (_, _, sent, fate) = case;
        let mut client = self.hub.client().await;
        let bytes = sent.replace("{H}", HOST_LINE).into_bytes();
        let _ = client.stream.write_all(&bytes).await; // it may be cut off while it still writes
        let _ = client.stream.flush().await;
        match *fate {
            Fate::Refused(status) => {
                let answer = client.rest().await;
                assert_eq!(statuses(&answer), [status], "{case:?} -> {answer}");
                self.nobody_heard(case);
            }
            Fate::CutOff(status) => {
                let mut app = patient(self.backend.listener.accept()).await.unwrap().0;
                let answer = client.rest().await;
                assert_eq!(statuses(&answer), [status], "{case:?} -> {answer}");
                let mut heard = Vec::new();
                let _ = patient(app.read_to_end(&mut heard)).await;
                assert!(!heard.ends_with(b"0\r\n\r\n"), "{case:?}: the app heard an end");
            }
            Fate::Answered(status) => {
                assert_eq!(client.message().await.status(), status, "{case:?}");
                self.nobody_heard(case);
                client.write(&get("/public/next")).await;
                self.answer("GET /public/next HTTP/1.1", "", case).await;
                assert_eq!(client.message().await.status(), 200, "{case:?}");
            }
            Fate::Passed(line, body) => {
                self.answer(line, body, case).await;
                assert_eq!(client.head().await.status(), 200, "{case:?}");
            }
            Fate::Each(lines) => {
                for line in lines {
                    self.answer(line, "", case).await;
                    assert_eq!(client.message().await.status(), 200, "{case:?}");
                }
            }
            Fate::Last(line) => {
                self.answer(line, "", case).await;
                let answer = client.rest().await;
                assert_eq!(statuses(&answer), [200], "{case:?} -> {answer}");
                assert!(
                    answer.to_ascii_lowercase().contains("connection: close\r\n"),
                    "{case:?} -> {answer}"
                );
            }
            Fate::Dropped => {
                patient(client.stream.shutdown()).await.unwrap();
                assert_eq!(client.rest().await, "", "{case:?}");
                self.nobody_heard(case);
            }
        }
    }

    /// The app hears this and answers.
    async fn answer(&self, line: &str, body: &str, case: &Case) {
        let mut app = self.backend.accept().await;
        let request = app.head().await;
        assert_eq!(request.head.lines().next(), Some(line), "{case:?} -> {}", request.head);
        let heard = app.body_of(&request).await;
        assert_eq!(heard, body, "{case:?}");
        app.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        assert_eq!(app.rest().await, "", "{case:?}: the app hears more than the request");
    }

    /// Whatever was to reach the app would have connected before its client was answered.
    fn nobody_heard(&self, case: &Case) {
        let heard = futures_util::FutureExt::now_or_never(self.backend.listener.accept());
        assert!(heard.is_none(), "{case:?}: the app was connected to");
    }
}

/// The statuses of all answers in there, which have texts as bodies.
fn statuses(answers: &str) -> Vec<u16> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

impl Peer {
    /// The body that a head announces, without its framing.
    async fn body_of(&mut self, head: &Message) -> String {
        if head.has("transfer-encoding: chunked") {
            assert_eq!(head.field("content-length"), None, "one length is enough");
            return self.chunks().await;
        }
        let length = head.field("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.fill().await, "ended within the body of {}", head.head);
        }
        let rest = self.read.split_off(length);
        String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap()
    }

    async fn chunks(&mut self) -> String {
        let mut body = String::new();
        loop {
            let line = self.until("\r\n").await;
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            while self.read.len() < size + 2 {
                assert!(self.fill().await, "ended within a chunk");
            }
            let rest = self.read.split_off(size + 2);
            let piece = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            assert!(piece.ends_with("\r\n"), "a chunk is as long as it says: {piece:?}");
            if size == 0 {
                return body;
            }
            body.push_str(&piece[..size]);
        }
    }
}

async fn judge_all(cases: &[Case]) {
    let bench = Bench::start().await;
    for case in cases {
        bench.judge(case).await;
    }
}
