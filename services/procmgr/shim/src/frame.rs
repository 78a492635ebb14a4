//! One log entry on disk. Little-endian:
//!
//! ```text
//! magic u32 | payload length u32 | crc32 u32 | seq u64 | unix_ms i64 | stream u8 | flags u8 | pid u32 | payload
//!                                 └ of the length and of everything after the checksum
//! ```
//! Flags: 1 = partial, 2 = gap. Sequence numbers start at 1 in each generation and count every line, also one that was
//! dropped; so a hole in them tells how much is missing.

/// Bytes before the payload.
pub const HEADER: usize = 34;
/// A payload is never longer; a longer line becomes several frames.
pub const PAYLOAD_MAX: usize = 64 * 1024;
/// No instance is started more often.
pub const GENERATION_MAX: u64 = (1 << 24) - 1;

const MAGIC: [u8; 4] = *b"NXF1";

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The app's standard output.
    Stdout = 1,
    /// The app's standard error.
    Stderr = 2,
    /// The platform, about the app.
    System = 3,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number within the generation. Of a gap: that of the last entry dropped.
    pub seq: u64,
    /// When the line was read from the app.
    pub unix_ms: i64,
    /// Where it came from.
    pub stream: Stream,
    /// The line goes on in the next frame of the same stream.
    pub partial: bool,
    /// Entries before this one could not be written; the payload is their count (u64).
    pub gap: bool,
    /// The app's main process.
    pub pid: u32,
    /// The line without its newline.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Appends the frame. The payload must not be longer than [`PAYLOAD_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let kind = [self.stream as u8, u8::from(self.partial) | u8::from(self.gap) << 1];
        let (seq, time, pid) = (self.seq.to_le_bytes(), self.unix_ms.to_le_bytes(), self.pid.to_le_bytes());
        let begin = out.len();
        for part in [&MAGIC[..], &length, &[0; 4], &seq, &time, &kind, &pid, self.payload] {
            out.extend_from_slice(part);
        }
        let checksum = checksum(length, &out[begin + 12..]);
        out[begin + 8..begin + 12].copy_from_slice(&checksum);
    }

    /// Of a gap: how many entries were dropped.
    pub fn dropped(&self) -> u64 {
        self.payload.first_chunk().map_or(0, |count| u64::from_le_bytes(*count))
    }
}

/// The frame that some bytes begin with, and how many it takes. None: its end has not come yet, or there is none.
pub fn decode(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let header = bytes.first_chunk::<HEADER>()?;
    let end = HEADER + u32::from_le_bytes(take(header, 4)) as usize;
    let payload = bytes.get(HEADER..end).filter(|payload| payload.len() <= PAYLOAD_MAX)?;
    let checksum = checksum(take(header, 4), &bytes[12..end]);
    let streams = [Stream::Stdout, Stream::Stderr, Stream::System];
    let frame = Frame {
        seq: u64::from_le_bytes(take(header, 12)),
        unix_ms: i64::from_le_bytes(take(header, 20)),
        stream: streams.into_iter().find(|stream| *stream as u8 == header[28])?,
        partial: header[29] & 1 != 0,
        gap: header[29] & 2 != 0,
        pid: u32::from_le_bytes(take(header, 30)),
        payload,
    };
    (header.starts_with(&MAGIC) && checksum == take(header, 8)).then_some((frame, end))
}

fn take<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    std::array::from_fn(|byte| header[at + byte])
}

fn checksum(length: [u8; 4], body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(body);
    hasher.finalize().to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn some(payload: &[u8]) -> Frame<'_> {
        Frame { seq: 1, unix_ms: 2, stream: Stream::Stderr, partial: false, gap: false, pid: 3, payload }
    }

    #[test]
    fn a_frame_without_its_end_is_none() {
        let mut bytes = Vec::new();
        some(b"hello").encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "{end}");
        }
        assert_eq!(decode(&bytes), Some((some(b"hello"), bytes.len())));
    }

    #[test]
    fn a_length_that_lies_is_no_frame() {
        let mut bytes = Vec::new();
        some(b"").encode(&mut bytes);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), None);
    }

    proptest! {
        #[test]
        fn every_frame_is_read_as_it_was_written(
            seq in any::<u64>(), unix_ms in any::<i64>(), pid in any::<u32>(),
            stream in prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr), Just(Stream::System)],
            partial in any::<bool>(), gap in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 0..2000), rest in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let frame = Frame { seq, unix_ms, stream, partial, gap, pid, payload: &payload };
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let length = bytes.len();
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(decode(&bytes), Some((frame, length)));
        }

        #[test]
        fn no_bytes_are_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200), lead in any::<bool>()) {
            let bytes = if lead { [MAGIC.as_slice(), &bytes].concat() } else { bytes };
            let _ = decode(&bytes);
        }

        #[test]
        fn no_flipped_bit_passes(at in any::<proptest::sample::Index>(), bit in 0..8) {
            let mut bytes = Vec::new();
            some(b"some words").encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes).is_none());
        }
    }
}
