//! The app of the stories: an HTTP/1.1 program that does on demand what apps do, good and bad. It waits for events, never
//! for time: `/slow` and `/sse` go on when `/go` says so, and health is what the file `$NEXUSHUB_DATA/status` holds.
//!
//! | path | what happens |
//! |---|---|
//! | `/api/status` | 200, or what the file `status` says: a code, or `hang` |
//! | `/`, `/whoami` | pid, environment and the request's own head, as JSON |
//! | `/echo` | the body, sent back |
//! | `/slow?key=K` | `begun`, and after `/go?key=K` `done` |
//! | `/sse?key=K` | event 1 at once, one more for each `/go?key=K` |
//! | `/say?key=K` | the body, said as it is instead of an answer; then, with a key after `/go?key=K`, it hangs up |
//! | `/go?key=K` | lets the above go on |
//! | `/print?text=T&count=N&stream=err` | N lines `T 1` to `T N`; with `bytes=B` each is B bytes long |
//! | `/noise?seed=S&from=F&count=N` | N lines of any bytes and lengths (`noise.rs`), from number F on |
//! | `/flood?mib=M&line=B` | so many MiB of lines of B bytes, as fast as it goes: how many microseconds it took |
//! | `/deaf` | nothing, and nothing is taken of the body, until the peer gives up |
//! | `/ws` | a WebSocket that echoes; told `close CODE REASON` it closes so, told `drop` it hangs up |
//! | `/sh` | the body, run by `sh`: what it said, and 200 if it ended well |
//! | `/tls?to=HOST:PORT` | the body, said there over TLS as it is: what came back until the end |
//! | `/applications` | what the file `applications` says, as the admin app lists what is registered there |
//! | `/poll?e=N` | the number of the last event, one more for each `/go?key=events`, once it is N |
//! | `/eat?mib=M` | has so much memory for a moment |
//! | `/crash?code=C` | ends at once, without an answer |
//!
//! Each also below `/api`. In the environment: `PROBE_IGNORE_TERM` (SIGTERM is never delivered), `PROBE_MUTE` (never listens), `PROBE_CRASH=C`
//! (ends with code C at the start). The file `$NEXUSHUB_DATA/crash` does what `PROBE_CRASH` does; every start appends a
//! line with the pid to `$NEXUSHUB_DATA/starts`.

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use nexushub_e2e::noise;
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        socket::{Backlog, listen},
    },
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tungstenite::{
    Message, WebSocket,
    handshake::derive_accept_key,
    protocol::{CloseFrame, Role},
};

/// Bytes written at once by who writes much.
const FLOOD: usize = 256 * 1024;

/// Connections that wait to be taken: a storm's, all at once. What found no room would be tried again a second later.
const BACKLOG: i32 = 4096;

/// Who has no room for one more waits as long for one to end, since it may be none of its own: trying all the time took its neighbours'
/// processors.
const NO_ROOM: Duration = Duration::from_millis(5);

/// How often each key was let go.
#[derive(Default)]
struct Gates {
    passes: Mutex<HashMap<String, u64>>,
    changed: Condvar,
}

impl Gates {
    fn go(&self, key: &str) {
        *self.passes.lock().expect("no holder panics").entry(key.to_owned()).or_default() += 1;
        self.changed.notify_all();
    }

    fn passed(&self, key: &str) -> u64 {
        self.passes.lock().expect("no holder panics").get(key).copied().unwrap_or_default()
    }

    /// Returns when the key was let go at least `times` times.
    fn wait(&self, key: &str, times: u64) {
        let passes = self.passes.lock().expect("no holder panics");
        let held = |passes: &mut HashMap<String, u64>| passes.get(key).is_none_or(|seen| *seen < times);
        drop(self.changed.wait_while(passes, held).expect("no holder panics"));
    }
}

/// A request's head, taken apart.
struct Head {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The next request of a connection; none when the peer is done.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request line"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(Some(Self { method: method.to_owned(), path: path.to_owned(), query, headers: headers(from)? }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.param(name).parse().ok()
    }

    fn body(&self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        if self.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return chunks(from);
        }
        let length = self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        Ok(body)
    }
}

fn headers(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => return Ok(headers),
        }
    }
}

fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
            .map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + length, 0);
        from.read_exact(&mut body[start..])?;
        from.read_line(&mut line)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

/// What the app is told from outside while it runs, and that a connection has ended.
struct Probe {
    gates: Gates,
    ended: (Mutex<()>, Condvar),
    data: PathBuf,
}

impl Probe {
    fn wait_for_room(&self) {
        let (lock, ended) = &self.ended;
        drop(ended.wait_timeout(lock.lock().expect("no holder panics"), NO_ROOM));
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let (mut reader, mut writer) = (BufReader::new(stream), stream); // one descriptor for each of a thousand
        while let Some(head) = Head::read(&mut reader)? {
            if head.path == "/ws" {
                return echo_messages(&head, &reader, writer);
            }
            if head.path == "/deaf" {
                return await_end(writer);
            }
            let body = head.body(&mut reader)?;
            let inner = ["/api", "/public"].iter().find_map(|class| head.path.strip_prefix(class));
            let path = inner.filter(|rest| *rest != "/status").unwrap_or(&head.path);
            match path {
                "/api/status" => self.status(&mut writer, &mut reader)?,
                "/" | "/whoami" => answer(&mut writer, 200, portrait(&head).as_bytes())?,
                "/echo" => answer(&mut writer, 200, &body)?,
                "/once" => return last_answer(&mut writer),
                "/slow" => self.slow(&mut writer, head.param("key"))?,
                "/sse" => return self.events(&mut writer, head.param("key")),
                "/say" => return self.say(&mut writer, head.param("key"), &body),
                "/go" => {
                    self.gates.go(head.param("key"));
                    answer(&mut writer, 200, b"gone")?;
                }
                "/print" => {
                    print_lines(&head)?;
                    answer(&mut writer, 200, b"printed")?;
                }
                "/noise" => {
                    make_noise(&head)?;
                    answer(&mut writer, 200, b"said")?;
                }
                "/flood" => {
                    let took = flood(&head)?;
                    answer(&mut writer, 200, took.as_micros().to_string().as_bytes())?;
                }
                "/sh" => {
                    let done = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&body)).output()?;
                    let code = if done.status.success() { 200 } else { 500 };
                    answer(&mut writer, code, &[done.stdout, done.stderr].concat())?;
                }
                "/tls" => match say_tls(head.param("to"), &body) {
                    Ok(said) => answer(&mut writer, 200, &said)?,
                    Err(error) => answer(&mut writer, 502, error.to_string().as_bytes())?,
                },
                "/applications" => match fs::read(self.data.join("applications")) {
                    Ok(list) => answer(&mut writer, 200, &list)?,
                    Err(error) => answer(&mut writer, 404, error.to_string().as_bytes())?,
                },
                "/poll" => self.poll(&mut writer, head.param("e").parse().unwrap_or(0))?,
                "/eat" => {
                    let mib = head.number("mib").unwrap_or(0);
                    // Piece by piece: a kernel may refuse at once what is more than there could be.
                    let eaten: Vec<_> = (0..mib).map(|_| vec![1_u8; 1 << 20]).collect();
                    answer(&mut writer, 200, std::hint::black_box(eaten).len().to_string().as_bytes())?;
                }
                "/crash" => end(head.number("code").unwrap_or(1)),
                _ => answer(&mut writer, 404, b"not found")?,
            }
        }
        Ok(())
    }

    fn status(&self, writer: &mut &TcpStream, reader: &mut impl Read) -> io::Result<()> {
        let wanted = fs::read_to_string(self.data.join("status")).unwrap_or_else(|_| "200".to_owned());
        match wanted.trim().parse() {
            Ok(code) => answer(writer, code, b"OK"),
            Err(_) => reader.read_to_end(&mut Vec::new()).map(drop), // hangs until the peer gives up
        }
    }

    fn poll(&self, writer: &mut &TcpStream, event: u64) -> io::Result<()> {
        const KEY: &str = "events";
        if event > 1 {
            self.gates.wait(KEY, event - 1);
        }
        let id = self.gates.passed(KEY) + 1;
        answer(writer, 200, serde_json::json!({"id": id, "version": "1"}).to_string().as_bytes())
    }

    fn slow(&self, writer: &mut &TcpStream, key: &str) -> io::Result<()> {
        write!(writer, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        chunk(writer, b"begun\n")?;
        self.gates.wait(key, 1);
        chunk(writer, b"done\n")?;
        chunk(writer, b"")
    }

    fn say(&self, writer: &mut &TcpStream, key: &str, what: &[u8]) -> io::Result<()> {
        writer.write_all(what)?;
        if !key.is_empty() {
            self.gates.wait(key, 1);
        }
        Ok(())
    }

    fn events(&self, writer: &mut &TcpStream, key: &str) -> io::Result<()> {
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        for number in 1.. {
            chunk(writer, format!("data: {number}\n\n").as_bytes())?;
            self.gates.wait(key, number);
        }
        Ok(())
    }
}

/// Trusts whom the platform says to trust.
fn say_tls(to: &str, what: &[u8]) -> io::Result<Vec<u8>> {
    let tcp = TcpStream::connect(to)?;
    let ca = env::var_os("SSL_CERT_FILE").ok_or_else(|| io::Error::other("no CA to trust"))?;
    let ca = CertificateDer::from_pem_file(Path::new(&ca)).map_err(io::Error::other)?;
    let mut trust = RootCertStore::empty();
    trust.add(ca).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(trust)
        .with_no_client_auth();
    let host = to.rsplit_once(':').map_or(to, |(host, _)| host).to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(client, tcp);
    stream.write_all(what)?;
    stream.flush()?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said)?;
    Ok(said)
}

fn answer(writer: &mut &TcpStream, code: u16, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 {code} Probe\r\ncontent-length: {}\r\n\r\n", body.len());
    writer.write_all(&[head.as_bytes(), body].concat())
}

/// After which the connection is closed, as it says.
fn last_answer(writer: &mut &TcpStream) -> io::Result<()> {
    writer.write_all(b"HTTP/1.1 200 Probe\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

fn chunk(writer: &mut &TcpStream, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

fn portrait(head: &Head) -> String {
    let environment: HashMap<String, String> = env::vars().collect();
    let cwd = env::current_dir().unwrap_or_default();
    serde_json::json!({
        "pid": std::process::id(), "env": environment, "cwd": cwd, "method": head.method, "path": head.path,
        "headers": head.headers,
    })
    .to_string()
}

fn print_lines(head: &Head) -> io::Result<()> {
    let mut text = Vec::new();
    for number in 1..=head.number("count").unwrap_or(1) {
        let line = format!("{} {number}", head.param("text"));
        let padding = head.number("bytes").unwrap_or(0).saturating_sub(line.len());
        writeln!(text, "{line}{}", "x".repeat(padding))?;
    }
    match head.param("stream") {
        "err" => io::stderr().lock().write_all(&text),
        _ => io::stdout().lock().write_all(&text).and_then(|()| io::stdout().flush()),
    }
}

fn make_noise(head: &Head) -> io::Result<()> {
    let number = |name| head.param(name).parse::<u64>().unwrap_or(0);
    let mut out = BufWriter::with_capacity(FLOOD, io::stdout().lock());
    for line in number("from")..number("from") + number("count") {
        out.write_all(&noise::line(number("seed"), line))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn flood(head: &Head) -> io::Result<Duration> {
    let length = head.number("line").unwrap_or(100).max(1);
    let mut line = vec![b'x'; length];
    line[length - 1] = b'\n';
    let block = line.repeat((FLOOD / length).max(1));
    let (mut left, mut out) = (head.number("mib").unwrap_or(1) << 20, io::stdout().lock());
    let since = Instant::now();
    while left > 0 {
        let now = left.min(block.len());
        out.write_all(&block[..now])?;
        left -= now;
    }
    Ok(since.elapsed())
}

/// Whatever else comes, it stays in the kernel.
fn await_end(stream: &TcpStream) -> io::Result<()> {
    let end = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut waited = [PollFd::new(stream.as_fd(), end)];
    poll(&mut waited, PollTimeout::NONE)?;
    Ok(())
}

fn echo_messages(head: &Head, reader: &BufReader<&TcpStream>, mut writer: &TcpStream) -> io::Result<()> {
    let accept = derive_accept_key(head.header("sec-websocket-key").unwrap_or_default().as_bytes());
    write!(
        writer,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )?;
    let early = reader.buffer().to_vec();
    let mut socket = WebSocket::from_partially_read(writer, early, Role::Server, None);
    while let Ok(message) = socket.read() {
        let told = message.to_text().unwrap_or_default();
        if told == "drop" {
            break;
        } else if let Some(frame) = farewell(told) {
            socket.close(Some(frame)).ok();
        } else if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).is_err() {
            break;
        }
    }
    Ok(())
}

/// What `close CODE REASON` asks to say.
fn farewell(told: &str) -> Option<CloseFrame> {
    let (code, reason) = told.strip_prefix("close ")?.split_once(' ')?;
    Some(CloseFrame { code: code.parse::<u16>().ok()?.into(), reason: reason.into() })
}

#[allow(clippy::disallowed_methods)] // a crash is the point: no destructor may run
fn end(code: usize) -> ! {
    std::process::exit(i32::try_from(code).unwrap_or(1))
}

fn main() -> io::Result<()> {
    let data = PathBuf::from(env::var_os("NEXUSHUB_DATA").unwrap_or_else(|| ".".into()));
    let mut starts = fs::OpenOptions::new().append(true).create(true).open(data.join("starts"))?;
    starts.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    let crash =
        fs::read_to_string(data.join("crash")).or_else(|_| env::var("PROBE_CRASH").map_err(io::Error::other));
    if let Ok(code) = crash {
        eprintln!("probe: told to crash");
        end(code.trim().parse().unwrap_or(1));
    }
    if env::var_os("PROBE_IGNORE_TERM").is_some() {
        SigSet::from(Signal::SIGTERM).thread_block()?; // before any thread: none will ever take it
    }
    if env::var_os("PROBE_MUTE").is_some() {
        loop {
            thread::park();
        }
    }
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listen(&listener, Backlog::new(BACKLOG)?)?; // anew: the library's own backlog is short
    println!("probe: listening on {port}");
    let probe = Arc::new(Probe { gates: Gates::default(), ended: (Mutex::new(()), Condvar::new()), data });
    for stream in listener.incoming() {
        let Ok(stream) = stream.map(Arc::new) else {
            probe.wait_for_room(); // for one more descriptor
            continue;
        };
        while let Err(error) = serve_beside(&probe, &stream) {
            // Its own processes have used up its bound: who calls waits until one of them has ended.
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            probe.wait_for_room();
        }
    }
    Ok(())
}

/// Serves a connection on a thread of its own; an error where no further thread can be had.
fn serve_beside(probe: &Arc<Probe>, stream: &Arc<TcpStream>) -> io::Result<()> {
    let (probe, stream) = (Arc::clone(probe), Arc::clone(stream));
    let serve = move || {
        drop(probe.serve(&stream)); // whoever hangs up has seen what it wanted
        drop(stream);
        probe.ended.1.notify_one();
    };
    thread::Builder::new().spawn(serve).map(drop)
}
