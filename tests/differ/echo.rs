//! What stands behind an origin: it says each request back and keeps a note of it. Only what an origin wrote comes here, so it is
//! read in the one form that they all write; a request is noted once it is whole.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as somebody understood it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Understood {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

/// One of them, for one origin.
#[derive(Debug, Clone)]
pub(crate) struct Echo {
    pub(crate) port: u16,
    notes: Arc<Mutex<Vec<Understood>>>,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let echo = Self { port: listener.local_addr().unwrap().port(), notes: Arc::default() };
        let notes = Arc::clone(&echo.notes);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                thread::spawn(move || converse(stream, &notes));
            }
        });
        echo
    }

    /// What was noted since this was asked last.
    pub(crate) fn noted(&self) -> Vec<Understood> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

fn converse(stream: TcpStream, notes: &Mutex<Vec<Understood>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
    while let Some(request) = read(&mut reader)? {
        let Understood { line, body } = &request;
        let head = format!("HTTP/1.1 200 OK\r\nX-Echo: {line}\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if line.starts_with("HEAD ") { &[][..] } else { body };
        let answer = [head.as_bytes(), body].concat();
        if !line.ends_with(" /api/status") {
            notes.lock().unwrap().push(request); // before its answer: whoever has that finds the note
        }
        writer.write_all(&answer)?;
    }
    Ok(())
}

/// The next request; none at the end, or where there is only a part of one.
fn read(from: &mut impl BufRead) -> io::Result<Option<Understood>> {
    let Some(first) = line(from)? else { return Ok(None) };
    let Some(named) = first.strip_suffix(" HTTP/1.1") else { return Err(io::ErrorKind::InvalidData.into()) };
    let (mut length, mut chunked) = (0, false);
    loop {
        let Some(field) = line(from)? else { return Ok(None) };
        let Some((name, value)) = field.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        while let Some(size) = line(from)? {
            let size = u64::from_str_radix(&size, 16).map_err(io::Error::other)?;
            from.take(size).read_to_end(&mut body)?;
            if size == 0 {
                while !line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                return Ok(Some(Understood { line: named.to_owned(), body }));
            }
            line(from)?;
        }
        return Ok(None);
    }
    from.take(length).read_to_end(&mut body)?;
    Ok((body.len() as u64 == length).then(|| Understood { line: named.to_owned(), body }))
}

fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    let whole = bytes.strip_suffix(b"\r\n").map(|line| String::from_utf8_lossy(line).into_owned());
    Ok(whole)
}
