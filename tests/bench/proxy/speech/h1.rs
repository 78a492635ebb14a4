//! HTTP/1.1 with one request at a time and answers of known length.

use std::rc::Rc;

use super::Speech;

/// A piece of an upload.
const PIECE: usize = 64 * 1024;

/// Asks the same again and again, or each of several requests in turn.
pub(crate) struct H1 {
    requests: Rc<[Vec<u8>]>,
    next: usize,
    upload: usize,
    unsaid: usize,
    head: Vec<u8>,
    body: usize,
}

impl H1 {
    /// GET of one path of one host, with a further header or none.
    pub(crate) fn get(host: &str, path: &str, header: &str) -> Self {
        Self::of(Rc::new([format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n").into_bytes()]), 0)
    }

    /// POST of so many bytes.
    pub(crate) fn post(host: &str, path: &str, bytes: usize) -> Self {
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {bytes}\r\n\r\n");
        Self { upload: bytes, ..Self::of(Rc::new([head.into_bytes()]), 0) }
    }

    /// Each of these requests in turn, beginning with a certain one.
    pub(crate) fn of(requests: Rc<[Vec<u8>]>, first: usize) -> Self {
        Self { requests, next: first, upload: 0, unsaid: 0, head: Vec::new(), body: 0 }
    }

    /// A whole head: how long the body is.
    fn understand(head: &[u8]) -> Result<usize, String> {
        let complain = || format!("not the answer that was asked for: {}", String::from_utf8_lossy(head));
        if !head.starts_with(b"HTTP/1.1 200") {
            return Err(complain());
        }
        let lines = head.split(|byte| *byte == b'\n');
        let mut length = lines.filter_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            name.eq_ignore_ascii_case(b"content-length:").then_some(value)
        });
        let length = length.next_back().and_then(|value| str::from_utf8(value).ok()?.trim().parse().ok());
        length.ok_or_else(complain)
    }
}

impl Speech for H1 {
    fn ask(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.requests[self.next]);
        self.next = (self.next + 1) % self.requests.len();
        self.unsaid = self.upload;
    }

    fn more(&mut self, out: &mut Vec<u8>) {
        let piece = self.unsaid.min(PIECE);
        out.resize(out.len() + piece, b'x');
        self.unsaid -= piece;
    }

    fn hear(&mut self, mut bytes: &[u8], _out: &mut Vec<u8>) -> Result<usize, String> {
        let mut finished = 0;
        while !bytes.is_empty() {
            if self.body == 0 {
                let before = self.head.len();
                self.head.extend_from_slice(bytes);
                let from = before.saturating_sub(3);
                let Some(end) = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
                    return Ok(finished);
                };
                let end = from + end + 4;
                self.body = Self::understand(&self.head[..end])?;
                bytes = &bytes[end - before..];
                self.head.clear();
            }
            let here = bytes.len().min(self.body);
            (self.body, bytes) = (self.body - here, &bytes[here..]);
            finished += usize::from(self.body == 0);
        }
        Ok(finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\n\r\nabc";

    #[test]
    fn answers_are_understood_however_they_are_cut() {
        let bytes = ANSWER.repeat(2);
        for cut in 0..bytes.len() {
            let mut speech = H1::get("a", "/", "");
            let heard = |bytes: &[u8], speech: &mut H1| speech.hear(bytes, &mut Vec::new()).unwrap();
            let (first, second) = (heard(&bytes[..cut], &mut speech), heard(&bytes[cut..], &mut speech));
            assert_eq!(first + second, 2, "cut at {cut}");
        }
    }

    #[test]
    fn another_status_or_an_unknown_length_is_no_answer() {
        for head in ["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(H1::get("a", "/", "").hear(head.as_bytes(), &mut Vec::new()).is_err(), "{head}");
        }
    }

    #[test]
    fn an_upload_is_said_in_pieces_to_its_last_byte() {
        let (mut speech, mut head, mut body) = (H1::post("a", "/", PIECE + 1), Vec::new(), Vec::new());
        speech.ask(&mut head);
        for _ in 0..3 {
            speech.more(&mut body);
        }
        assert!(head.ends_with(b"Content-Length: 65537\r\n\r\n"));
        assert_eq!(body.len(), PIECE + 1);
    }
}
