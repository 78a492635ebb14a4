//! The Huffman code of HPACK (RFC 7541 §5.2, appendix B), read four bits at a time. Pure.
//!
//! The code is canonical: the lengths of its words say all of it. Tree and steps are made from them when this is compiled.

use super::Wrong;

/// How many bits each byte's word has; the last one is the end of the string, which is never written.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,  5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SYMBOLS: usize = 257;
const END: usize = 256;
const LONGEST: u8 = 30;
/// A child that is a byte, not a place where the tree branches.
const LEAF: u16 = 0x8000;

/// Where four more bits lead from a place in the tree.
#[derive(Clone, Copy)]
struct Step {
    to: u8,
    /// The byte that is complete on the way; no word is so short that there could be two.
    byte: Option<u8>,
    /// The end of the string was written.
    fails: bool,
}

static STEPS: [[Step; 16]; END] = steps();
/// Places where a string may end: at most seven bits into a word, all of them ones.
static ENDS: [bool; END] = ends();

/// Appends what these bytes stand for.
pub(super) fn decode(bytes: &[u8], to: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut place = 0;
    for byte in bytes {
        for bits in [byte >> 4, byte & 15] {
            let step = STEPS[usize::from(place)][usize::from(bits)];
            if step.fails {
                return Err(Wrong::Huffman);
            }
            to.extend(step.byte);
            place = step.to;
        }
    }
    if ENDS[usize::from(place)] { Ok(()) } else { Err(Wrong::Huffman) }
}

/// The words in order: by length, then by byte; each is the one before plus one.
const fn tree() -> [[u16; 2]; END] {
    let mut tree = [[0; 2]; END]; // 0 = nothing yet: no branch leads back to the root
    let (mut used, mut word, mut length) = (1, 0u32, 1);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] == length {
                used = plant(&mut tree, used, word, length, symbol as u16);
                word += 1;
            }
            symbol += 1;
        }
        word <<= 1;
        length += 1;
    }
    tree
}

const fn plant(tree: &mut [[u16; 2]; END], mut used: u16, word: u32, length: u8, symbol: u16) -> u16 {
    let (mut place, mut left) = (0, length);
    while left > 1 {
        left -= 1;
        let side = (word >> left & 1) as usize;
        if tree[place][side] == 0 {
            tree[place][side] = used;
            used += 1;
        }
        place = tree[place][side] as usize;
    }
    tree[place][(word & 1) as usize] = LEAF | symbol;
    used
}

const fn steps() -> [[Step; 16]; END] {
    let tree = tree();
    let mut steps = [[Step { to: 0, byte: None, fails: false }; 16]; END];
    let mut place = 0;
    while place < END {
        let mut bits = 0;
        while bits < 16 {
            steps[place][bits] = step(&tree, place, bits);
            bits += 1;
        }
        place += 1;
    }
    steps
}

const fn step(tree: &[[u16; 2]; END], mut place: usize, bits: usize) -> Step {
    let (mut byte, mut left) = (None, 4);
    while left > 0 {
        left -= 1;
        let child = tree[place][bits >> left & 1];
        place = child as usize;
        if child & LEAF != 0 {
            let symbol = (child & !LEAF) as usize;
            if symbol == END {
                return Step { to: 0, byte: None, fails: true };
            }
            byte = Some(symbol as u8);
            place = 0;
        }
    }
    Step { to: place as u8, byte, fails: false }
}

const fn ends() -> [bool; END] {
    let tree = tree();
    let mut ends = [false; END];
    let (mut place, mut bits) = (0, 0);
    while bits <= 7 {
        ends[place] = true;
        place = tree[place][1] as usize;
        bits += 1;
    }
    ends
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Wrong> {
        let mut to = Vec::new();
        decode(bytes, &mut to).map(|()| to)
    }

    /// Writes as appendix B has it, by a way of its own.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut order: Vec<usize> = (0..SYMBOLS).collect();
        order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let (mut words, mut word, mut length) = ([0u32; SYMBOLS], 0, LENGTHS[order[0]]);
        for symbol in order {
            word <<= LENGTHS[symbol] - length;
            (words[symbol], length) = (word, LENGTHS[symbol]);
            word += 1;
        }
        let mut bits: Vec<bool> = Vec::new();
        for byte in text {
            let (word, length) = (words[usize::from(*byte)], LENGTHS[usize::from(*byte)]);
            bits.extend((0..length).rev().map(|bit| word >> bit & 1 == 1));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(true);
        }
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (bytes, text) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            assert_eq!(decoded(bytes).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        let all: Vec<u8> = (0..=255).rev().chain(0..=255).collect();
        assert_eq!(decoded(&encoded(&all)).unwrap(), all);
    }

    #[test]
    fn only_ones_fewer_than_eight_may_fill_the_last_byte() {
        for bytes in [
            &[0xff][..],               // eight ones
            &[0x64, 0x02, 0xff],       // a byte of them too many
            &[0x64, 0x02, 0x00],       // zeros: a byte is left begun
            &[0xff, 0xff, 0xff, 0xff], // the end of the string
        ] {
            assert!(decoded(bytes).is_err(), "{bytes:x?}");
        }
    }
}
