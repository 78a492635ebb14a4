//! What an app said before it ended, for whoever asks why it did: a few lines, bounded, so that they may go wherever its state goes.

use std::{collections::VecDeque, fs, io, path::Path};

use nexushub_shim::{
    frame::{self, Stream},
    segment,
};

use crate::generation::{self, Generation};

/// Entries looked at.
const LINES: usize = 20;
/// Longest line, in bytes; of a longer one its beginning is told.
const LINE_BYTES: usize = 400;
/// Longest text.
const BYTES: usize = 4096;

/// A line or a piece of one.
struct Piece {
    stream: Stream,
    /// The line goes on in the next piece of the same stream.
    partial: bool,
    bytes: Vec<u8>,
}

/// The last lines that a generation logged. Blocks.
pub(crate) fn of(run: &Generation) -> String {
    let Some(instance) = run.dir.parent() else { return String::new() };
    match newest(&generation::log(instance), run.number, LINES) {
        Ok(pieces) => text(&pieces),
        Err(error) => {
            tracing::warn!(instance = %run.instance, generation = run.number, error = %error, "an app's last words could not be read");
            String::new()
        }
    }
}

/// The newest pieces that a generation wrote, oldest first, found from its newest segment backwards.
fn newest(folder: &Path, generation: u64, count: usize) -> io::Result<Vec<Piece>> {
    let mut found = VecDeque::new();
    for (name, _) in
        segment::list(folder)?.into_iter().rev().filter(|(name, _)| name.generation == generation)
    {
        if found.len() == count {
            break;
        }
        let (bytes, mut at, mut here) = (fs::read(folder.join(name.to_string()))?, 0, VecDeque::new());
        while let Some((frame, length)) = frame::decode(&bytes[at..]) {
            let (stream, partial, bytes) = (frame.stream, frame.partial, frame.payload.to_vec());
            here.extend((!frame.gap).then_some(Piece { stream, partial, bytes }));
            here.drain(..(here.len() + found.len()).saturating_sub(count));
            at += length;
        }
        here.extend(found);
        found = here;
    }
    Ok(found.into())
}

/// As many of the newest lines as the bound lets, in order.
fn text(pieces: &[Piece]) -> String {
    let lines = lines(pieces);
    let mut left = BYTES;
    let kept = lines.iter().rev().take_while(|line| {
        let fits = line.len() < left;
        left = left.saturating_sub(line.len() + 1);
        fits
    });
    let kept = kept.count();
    lines[lines.len() - kept..].join("\n")
}

/// Pieces put together, without what the shim noted: that is none of the app's words.
fn lines(pieces: &[Piece]) -> Vec<String> {
    let mut lines: Vec<(Stream, bool, Vec<u8>)> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.stream != Stream::System) {
        match lines.iter_mut().rev().find(|(stream, partial, _)| *partial && *stream == piece.stream) {
            Some((_, partial, line)) => {
                line.extend_from_slice(&piece.bytes);
                *partial = piece.partial;
            }
            None => lines.push((piece.stream, piece.partial, piece.bytes.clone())),
        }
    }
    lines.iter().map(|(_, _, line)| shown(line)).collect()
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    match text.len() {
        0..=LINE_BYTES => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(LINE_BYTES)]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_shim::segment::{BUDGET_MIN, Writer};

    use super::*;

    fn entry(stream: Stream, partial: bool, line: &str) -> Piece {
        Piece { stream, partial, bytes: line.as_bytes().to_vec() }
    }

    #[test]
    fn the_newest_pieces_of_one_generation_are_found_over_segments_and_beside_others() {
        let folder = tempfile::tempdir().unwrap();
        let generation = |number| Writer::new(folder.path(), number, 42, 4 * BUDGET_MIN, 0).unwrap();
        let write = |writer: &mut Writer, text: &str| {
            writer.line(Stream::Stdout, false, 5, text.as_bytes());
            writer.flush(5);
        };
        let mut first = generation(1);
        write(&mut first, "old");
        while segment::list(folder.path()).unwrap().len() < 2 {
            write(&mut first, &"x".repeat(40_000));
        }
        ["a", "b"].into_iter().for_each(|text| write(&mut first, text));
        write(&mut generation(2), "newer");
        let said = |generation, count| -> Vec<Vec<u8>> {
            newest(folder.path(), generation, count).unwrap().into_iter().map(|piece| piece.bytes).collect()
        };
        assert_eq!(said(1, 2), [b"a", b"b"]);
        assert_eq!(said(2, 5), [b"newer"], "fewer, where there are no more");
        let all = said(1, 100);
        assert!(all.first().unwrap() == b"old" && all.last().unwrap() == b"b", "over segments");
        assert!(said(3, 5).is_empty() && said(1, 0).is_empty());
    }

    #[test]
    fn pieces_are_one_line_and_the_shims_notes_are_none() {
        let said = [
            entry(Stream::Stdout, true, "half "),
            entry(Stream::Stderr, false, "an error\r"),
            entry(Stream::System, false, "ignored signal 15"),
            entry(Stream::Stdout, false, "a line"),
            entry(Stream::Stdout, false, "the end"),
        ];
        assert_eq!(text(&said), "half a line\nan error\nthe end");
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn long_lines_are_cut_and_of_many_long_ones_the_newest_are_told() {
        let long = "ü".repeat(LINE_BYTES);
        let mut said: Vec<_> = (0..19).map(|_| entry(Stream::Stdout, false, &long)).collect();
        said.push(entry(Stream::Stdout, false, "panicked"));
        let told = text(&said);
        assert!(told.len() <= BYTES && told.ends_with("…\npanicked"), "{}", told.len());
        assert!(told.lines().all(|line| line.len() <= LINE_BYTES + '…'.len_utf8()));
        assert!(told.lines().count() > 9, "as many as the bound lets");
    }
}
