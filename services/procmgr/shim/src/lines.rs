//! Cuts what a pipe delivers into lines. Any bytes pass; a line longer than a frame becomes pieces.
#![allow(unsafe_code)]

use std::mem;

use nexushub_shim::frame::PAYLOAD_MAX;

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
pub(crate) struct Lines {
    held: Vec<u8>,
}

impl Lines {
    /// Hands out every line that has its end, and pieces of one that is too long (`true` = it goes on). What came at once is
    /// not copied.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while !chunk.is_empty() {
            let end = newline(chunk);
            let length = end.unwrap_or(chunk.len()).min(PAYLOAD_MAX - self.held.len());
            let (ends, (piece, rest)) = (end == Some(length), chunk.split_at(length));
            if self.held.is_empty() && !rest.is_empty() {
                emit(piece, !ends);
            } else {
                self.held.extend_from_slice(piece);
                if !rest.is_empty() {
                    emit(&mem::take(&mut self.held), !ends);
                }
            }
            chunk = &rest[usize::from(ends)..];
        }
    }

    /// The pipe has ended: what is held is the last line.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.held.is_empty() {
            emit(&mem::take(&mut self.held), false);
        }
    }
}

/// Where the first line ends. The C library looks at many bytes at once.
fn newline(bytes: &[u8]) -> Option<usize> {
    // SAFETY: it reads as many bytes as the slice has.
    let found = unsafe { nix::libc::memchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, bool)> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |line, partial| seen.push((line.to_vec(), partial)));
        }
        lines.finish(|line, partial| seen.push((line.to_vec(), partial)));
        seen
    }

    #[test]
    fn lines_are_cut_wherever_chunks_begin_and_end() {
        let seen = cut([&b"one\ntw"[..], b"o", b"\n\n", b"\0\xff end"]);
        let lines = [&b"one"[..], b"two", b"", b"\0\xff end"];
        assert_eq!(seen, lines.map(|line| (line.to_vec(), false)));
    }

    #[test]
    fn a_line_of_just_a_frame_is_one_and_one_byte_more_makes_two() {
        let full = vec![b'x'; PAYLOAD_MAX];
        assert_eq!(cut([full.as_slice(), b"\n"]), [(full.clone(), false)]);
        assert_eq!(cut([full.as_slice(), b"y\n"]), [(full.clone(), true), (b"y".to_vec(), false)]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_made_up(chunks in proptest::collection::vec(
            prop_oneof![Just(vec![b'x'; 40_000]), proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40)], 0..9,
        )) {
            let mut again = Vec::new();
            for (line, partial) in cut(chunks.iter().map(Vec::as_slice)) {
                prop_assert!(line.len() <= PAYLOAD_MAX);
                again.extend(line);
                if !partial { again.push(b'\n'); }
            }
            let mut sent = chunks.concat();
            if sent.last().is_some_and(|byte| *byte != b'\n') { sent.push(b'\n'); }
            prop_assert_eq!(again, sent);
        }
    }
}
