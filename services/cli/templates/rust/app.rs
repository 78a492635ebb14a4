//! {{name}}: answers HTTP on 127.0.0.1:$PORT, with nothing but Rust's standard library.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// Largest head of a request, and the longest wait for it.
const HEAD_MAX: u64 = 16 << 10;
const HEAD_WAIT: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("{{name}} listens on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(&stream).unwrap_or_else(|error| eprintln!("a request: {error}")));
    }
    Ok(())
}

/// One request, one connection.
fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(HEAD_WAIT))?;
    let mut reader = BufReader::new(stream.take(HEAD_MAX));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut field = String::new();
    while reader.read_line(&mut field)? > 2 {
        field.clear();
    }
    let (status, body) = answer(request.split_whitespace().nth(1).unwrap_or(""));
    let kind = "text/plain; charset=utf-8";
    let length = body.len();
    write!(
        &*stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What is said at a path. The platform asks for /api/status to learn whether the app works.
fn answer(path: &str) -> (&'static str, String) {
    match path {
        "/api/status" => ("200 OK", "OK".into()),
        "/" => ("200 OK", "Hello from {{name}}\n".into()),
        _ => ("404 Not Found", format!("there is nothing at {path}\n")),
    }
}
