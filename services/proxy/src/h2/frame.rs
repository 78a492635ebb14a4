//! Frames of HTTP/2 (RFC 9113 §4, §6): where one ends and what it holds, and how ours are written. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Fatal, Reason};

/// What a client says first (§3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(super) const HEAD: usize = 9;
/// The largest payload that is taken, and that is sent: every client takes it, and a record of TLS holds no more.
pub(super) const LARGEST: usize = 16_384;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 8441 §3.
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0 = the connection.
    pub(super) stream: u32,
    pub(super) payload: Bytes,
}

impl Frame {
    /// Whether it says this.
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Cuts padding off (§6.1); nothing else may be left of it than what it is for.
    pub(super) fn unpad(&mut self) -> Result<(), Fatal> {
        if self.is(PADDED) {
            let padding = self.payload.try_get_u8().map_err(|_| size("a padded frame is empty"))?;
            let left = self.payload.len().checked_sub(padding.into());
            self.payload.truncate(left.ok_or_else(|| protocol("a frame's padding is longer than it"))?);
        }
        Ok(())
    }

    /// Cuts the priority off a frame of headers, of which nothing is used; whether it makes no sense (RFC 7540 §5.3.1).
    pub(super) fn skip_priority(&mut self) -> Result<bool, Fatal> {
        if !self.is(WITH_PRIORITY) {
            return Ok(false);
        }
        let parent = self.payload.try_get_u32().map_err(|_| size("a frame of headers is too short"))?;
        self.payload.try_get_u8().map_err(|_| size("a frame of headers is too short"))?;
        Ok(parent & MASK == self.stream)
    }

    /// The one number that it holds.
    pub(super) fn number(&self) -> Result<u32, Fatal> {
        let bytes = self.payload.as_ref().try_into();
        bytes.map(u32::from_be_bytes).map_err(|_| size("a frame of one number has another size"))
    }
}

/// Numbers of streams and windows have 31 bits.
pub(super) const MASK: u32 = 0x7fff_ffff;

/// Takes the next frame, once it is there whole.
pub(super) fn next(bytes: &mut BytesMut) -> Result<Option<Frame>, Fatal> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [a, b, c, kind, flags, stream @ ..] = *head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > LARGEST {
        return Err(size("a frame is larger than was agreed"));
    }
    if rest.len() < length {
        return Ok(None);
    }
    bytes.advance(HEAD);
    let payload = bytes.split_to(length).freeze();
    Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & MASK, payload }))
}

/// Whether a part of a frame is one of a header section's.
pub(super) fn is_of_headers(part: &[u8]) -> bool {
    part.get(3).is_some_and(|kind| matches!(*kind, HEADERS | CONTINUATION))
}

/// The pairs of a frame of settings.
pub(super) fn settings(payload: &[u8]) -> Result<impl Iterator<Item = (u16, u32)>, Fatal> {
    let (pairs, []) = payload.as_chunks::<6>() else {
        return Err(size("settings have another size than pairs have"));
    };
    Ok(pairs.iter().map(|[a, b, value @ ..]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))))
}

/// A frame's head.
pub(super) fn head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    [a, b, c, kind, flags, s, t, u, v]
}

/// A frame of which all is here.
pub(super) fn put(to: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    to.put_slice(&head(payload.len(), kind, flags, stream));
    to.put_slice(payload);
}

/// A frame of settings.
pub(super) fn put_settings(to: &mut BytesMut, pairs: &[(u16, u32)]) {
    to.put_slice(&head(6 * pairs.len(), SETTINGS, 0, 0));
    for (name, value) in pairs {
        to.put_u16(*name);
        to.put_u32(*value);
    }
}

/// The end of a connection: what was the last stream that is served, and why.
pub(super) fn put_goaway(to: &mut BytesMut, last: u32, reason: Reason, why: &str) {
    to.put_slice(&head(8 + why.len(), GOAWAY, 0, 0));
    to.put_u32(last);
    to.put_u32(reason as u32);
    to.put_slice(why.as_bytes());
}

fn size(why: &'static str) -> Fatal {
    Fatal::new(Reason::FrameSize, why)
}

fn protocol(why: &'static str) -> Fatal {
    Fatal::new(Reason::Protocol, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let mut whole = BytesMut::new();
        put(&mut whole, PING, ACK, 0x8000_0003, b"12345678");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(next(&mut part).unwrap(), None);
            assert_eq!(part.len(), cut);
        }
        let frame = next(&mut whole).unwrap().unwrap();
        let payload = Bytes::from_static(b"12345678");
        assert_eq!(frame, Frame { kind: PING, flags: ACK, stream: 3, payload });
        assert!(whole.is_empty());
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_by_its_head() {
        let mut head = BytesMut::from(&head(LARGEST + 1, DATA, 0, 1)[..]);
        assert_eq!(next(&mut head).unwrap_err().reason, Reason::FrameSize);
    }

    #[test]
    fn padding_is_cut_off_unless_there_is_more_of_it_than_frame() {
        let frame = |payload: &'static [u8]| Frame {
            kind: DATA,
            flags: PADDED,
            stream: 1,
            payload: Bytes::from_static(payload),
        };
        let mut padded = frame(&[2, b'a', 0, 0]);
        padded.unpad().unwrap();
        assert_eq!(padded.payload, "a");
        assert_eq!(frame(&[3, 0, 0]).unpad().unwrap_err().reason, Reason::Protocol);
        assert_eq!(frame(&[]).unpad().unwrap_err().reason, Reason::FrameSize);
    }

    #[test]
    fn settings_are_pairs() {
        let mut bytes = BytesMut::new();
        put_settings(&mut bytes, &[(ENABLE_PUSH, 0), (MAX_FRAME_SIZE, 20_000)]);
        let frame = next(&mut bytes).unwrap().unwrap();
        let pairs: Vec<_> = settings(&frame.payload).unwrap().collect();
        assert_eq!(pairs, [(ENABLE_PUSH, 0), (MAX_FRAME_SIZE, 20_000)]);
        assert!(settings(&[0; 7]).is_err());
    }
}
