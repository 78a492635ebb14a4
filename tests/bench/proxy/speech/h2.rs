//! HTTP/2 as a client of few words: the request's fields are in the peer's table after the first request, windows are as large as
//! they may be, and of the answers only status and end are looked at.

use super::Speech;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// The most that a window may be.
const WINDOW: u32 = (1 << 31) - 1;
/// What every connection's window is in the beginning.
const FIRST_WINDOW: u32 = 65_535;
/// After so many bytes the connection's window is opened again.
const REFILL: usize = 1 << 24;

/// GET of one path of one host.
pub(crate) struct H2 {
    authority: String,
    path: String,
    stream: u32,
    heard: Vec<u8>,
    taken: usize,
}

impl H2 {
    pub(crate) fn get(authority: &str, path: &str) -> Self {
        let (authority, path) = (authority.to_owned(), path.to_owned());
        Self { authority, path, stream: 1, heard: Vec::new(), taken: 0 }
    }

    /// One whole frame: whether it finished a request.
    fn understand(&mut self, head: &Head, body: &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
        match head.kind {
            DATA => {
                self.taken += body.len();
                if self.taken >= REFILL {
                    let more = u32::try_from(self.taken).expect("one frame more than the bound");
                    frame(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
                    self.taken = 0;
                }
            }
            HEADERS if head.flags & END_HEADERS != 0 => {
                // 0x88 is `:status: 200`; before it there may be a word about the size of the table.
                let status = body.iter().find(|byte| **byte >> 5 != 1);
                if status != Some(&0x88) {
                    return Err(format!("not the answer that was asked for: {body:02x?}"));
                }
            }
            SETTINGS if head.flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if head.flags & ACK == 0 => frame(out, PING, ACK, 0, body),
            RESET | GO_AWAY | HEADERS => return Err(format!("frame of kind {}: {body:02x?}", head.kind)),
            _ => {}
        }
        Ok(head.kind <= HEADERS && head.flags & END_STREAM != 0)
    }
}

struct Head {
    length: usize,
    kind: u8,
    flags: u8,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, ..] = bytes.get(..HEAD)? else { return None };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        (bytes.len() >= HEAD + length).then_some(Self { length, kind, flags })
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("frames of ours are short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

/// A field whose name is in the static table, to be kept in the dynamic one.
fn field(block: &mut Vec<u8>, name: u8, value: &str) {
    block.push(0x40 | name);
    block.push(u8::try_from(value.len()).ok().filter(|length| *length < 127).expect("short names"));
    block.extend_from_slice(value.as_bytes());
}

impl Speech for H2 {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        let settings = [[0, 2, 0, 0, 0, 0].as_slice(), &[0, 4], &WINDOW.to_be_bytes()].concat(); // no push; window
        frame(out, SETTINGS, 0, 0, &settings);
        frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
    }

    fn ask(&mut self, out: &mut Vec<u8>) {
        const GET_HTTPS: [u8; 2] = [0x82, 0x87];
        const AUTHORITY: u8 = 1;
        const PATH: u8 = 4;
        const BOTH_AS_BEFORE: [u8; 2] = [0x80 | 63, 0x80 | 62];
        if self.stream == 1 {
            let mut block = GET_HTTPS.to_vec();
            field(&mut block, AUTHORITY, &self.authority);
            field(&mut block, PATH, &self.path);
            frame(out, HEADERS, END_HEADERS | END_STREAM, self.stream, &block);
        } else {
            let block = [GET_HTTPS, BOTH_AS_BEFORE].concat();
            frame(out, HEADERS, END_HEADERS | END_STREAM, self.stream, &block);
        }
        self.stream += 2;
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend_from_slice(bytes);
        let (mut at, mut finished) = (0, 0);
        while let Some(head) = Head::of(&heard[at..]) {
            let end = at + HEAD + head.length;
            finished += usize::from(self.understand(&head, &heard[at + HEAD..end], out)?);
            at = end;
        }
        heard.drain(..at);
        self.heard = heard;
        Ok(finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &[0x3F, 0x88]);
        frame(&mut bytes, DATA, END_STREAM, 1, b"abc");
        bytes
    }

    #[test]
    fn answers_are_understood_however_they_are_cut() {
        let bytes = answer();
        for cut in 0..bytes.len() {
            let (mut speech, mut out) = (H2::get("a", "/"), Vec::new());
            let first = speech.hear(&bytes[..cut], &mut out).unwrap();
            let second = speech.hear(&bytes[cut..], &mut out).unwrap();
            assert_eq!(first + second, 1, "cut at {cut}");
            assert_eq!(out, [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0], "settings are acknowledged once");
        }
    }

    #[test]
    fn another_status_or_the_end_of_the_connection_is_no_answer() {
        let mut refused = Vec::new();
        frame(&mut refused, HEADERS, END_HEADERS | END_STREAM, 1, &[0x8D]);
        let mut ended = Vec::new();
        frame(&mut ended, GO_AWAY, 0, 0, &[0; 8]);
        for bytes in [refused, ended] {
            assert!(H2::get("a", "/").hear(&bytes, &mut Vec::new()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_first_request_says_its_fields_and_the_next_ones_point_at_them() {
        let (mut speech, mut first, mut next) = (H2::get("host", "/path"), Vec::new(), Vec::new());
        speech.ask(&mut first);
        speech.ask(&mut next);
        assert_eq!(first[HEAD..], *b"\x82\x87\x41\x04host\x44\x05/path");
        assert_eq!(next, [0, 0, 4, HEADERS, 5, 0, 0, 0, 3, 0x82, 0x87, 0xBF, 0xBE]);
    }
}
