//! A WebSocket whose short messages come back.

use super::Speech;

/// Bytes of a message.
const LENGTH: u8 = 100;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// One message after the other, once the peer has agreed.
pub(crate) struct WebSocket {
    host: String,
    path: String,
    heard: Vec<u8>,
    agreed: bool,
    /// Messages that were asked for before the peer agreed.
    waiting: usize,
}

impl WebSocket {
    pub(crate) fn of(host: &str, path: &str) -> Self {
        let (host, path) = (host.to_owned(), path.to_owned());
        Self { host, path, heard: Vec::new(), agreed: false, waiting: 0 }
    }

    fn agree(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
        if !self.heard.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&self.heard)));
        }
        self.heard.drain(..end + 4);
        self.agreed = true;
        for _ in 0..self.waiting {
            message(out);
        }
        Ok(())
    }
}

fn message(out: &mut Vec<u8>) {
    out.extend([0x82, 0x80 | LENGTH]);
    out.extend(MASK);
    out.extend((0..LENGTH).zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

impl Speech for WebSocket {
    fn open(&mut self, out: &mut Vec<u8>) {
        let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.host);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
        out.extend_from_slice(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    }

    fn ask(&mut self, out: &mut Vec<u8>) {
        if self.agreed {
            message(out);
        } else {
            self.waiting += 1;
        }
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        self.heard.extend_from_slice(bytes);
        if !self.agreed {
            self.agree(out)?;
        }
        let whole = 2 + usize::from(LENGTH);
        let finished = if self.agreed { self.heard.len() / whole } else { 0 };
        for echo in self.heard[..finished * whole].chunks(whole) {
            if echo[..2] != [0x82, LENGTH] || !echo[2..].iter().copied().eq(0..LENGTH) {
                return Err(format!("not what was said: {echo:02x?}"));
            }
        }
        self.heard.drain(..finished * whole);
        Ok(finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_waits_for_the_agreement_and_its_echo_finishes_it() {
        let (mut speech, mut out) = (WebSocket::of("a", "/"), Vec::new());
        speech.ask(&mut out);
        assert!(out.is_empty(), "nothing is said before the peer has agreed");
        speech.hear(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &mut out).unwrap();
        assert_eq!(out.len(), 6 + usize::from(LENGTH));
        let echo: Vec<u8> = [0x82, LENGTH].into_iter().chain(0..LENGTH).collect();
        assert_eq!(speech.hear(&echo[..10], &mut out).unwrap(), 0);
        assert_eq!(speech.hear(&echo[10..], &mut out).unwrap(), 1);
    }

    #[test]
    fn an_echo_of_something_else_is_none() {
        let mut speech = WebSocket::of("a", "/");
        speech.hear(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &mut Vec::new()).unwrap();
        assert!(speech.hear(&[0x82; 102], &mut Vec::new()).is_err());
    }
}
