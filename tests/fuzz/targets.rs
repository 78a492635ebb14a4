//! Every parser that is ours, as a function of any bytes that panics where a promise is broken; and the kept corpus, one file for
//! each of them with one line for each input, escaped as Rust writes bytes.

#![allow(clippy::unwrap_used)] // a promise that is broken is to be loud

mod ours;

use std::{fs, io, path::PathBuf};

pub use nexushub_proxy::fuzzing::Target;

/// All of them.
#[must_use]
pub fn all() -> Vec<(&'static str, Target)> {
    let daemons = nexushub_proxy::fuzzing::TARGETS.into_iter().chain(nexushub_debug_api::fuzzing::TARGETS);
    daemons.chain(ours::TARGETS).collect()
}

/// Where the corpus of a target is kept.
#[must_use]
pub fn kept(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs that are kept for a target.
///
/// # Errors
/// When they can't be read.
pub fn seeds(target: &str) -> io::Result<Vec<Vec<u8>>> {
    Ok(fs::read_to_string(kept(target))?.lines().map(unescape).collect())
}

/// Keeps these.
///
/// # Errors
/// When they can't be written.
pub fn keep(target: &str, mut inputs: Vec<Vec<u8>>) -> io::Result<()> {
    inputs.sort();
    inputs.dedup();
    let lines: Vec<String> = inputs.iter().map(|input| format!("{}\n", input.escape_ascii())).collect();
    fs::write(kept(target), lines.concat())
}

/// What `escape_ascii` made of bytes, as those bytes.
fn unescape(line: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut bytes, mut rest) = (Vec::new(), line.as_bytes());
    loop {
        let (byte, after) = match rest {
            [b'\\', b'x', high, low, after @ ..] => {
                (digit(*high).unwrap() << 4 | digit(*low).unwrap(), after)
            }
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b'r', after @ ..] => (b'\r', after),
            [b'\\', b't', after @ ..] => (b'\t', after),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => (*byte, after),
            [] => return bytes,
        };
        bytes.push(byte);
        rest = after;
    }
}
