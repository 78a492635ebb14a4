//! Reading header blocks. What is read is copied out of them, never more than the string itself: what a client has us keep in
//! its table is no larger than it is counted for.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Field, Wrong, huffman, statics};

/// The size of a client's table, counted as RFC 7541 §4.1 does; what every client may assume until it is told otherwise.
const TABLE: usize = 4096;

/// What a client's blocks are read with.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest first.
    table: VecDeque<Entry>,
    /// What the table's entries count for, and may.
    size: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    name: Bytes,
    field: Field,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, most: TABLE }
    }
}

impl Decoder {
    /// Reads a block; each field is given to `take`, which says whether it wants more. What nobody wants is read over, for the
    /// table and for what may be wrong with it.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(Field) -> bool,
    ) -> Result<(), Wrong> {
        let (mut resizable, mut wanted, mut spare) = (true, true, Vec::new());
        while let Some(first) = block.first() {
            if first & 0xe0 == 0x20 {
                let most = number(&mut block, 5)?;
                if !resizable || most > TABLE {
                    return Err(Wrong::Resize);
                }
                self.most = most;
                self.shrink(most);
                continue;
            }
            resizable = false;
            if wanted {
                wanted = take(self.field(*first, &mut block)?);
            } else {
                self.skip(*first, &mut block, &mut spare)?;
            }
        }
        Ok(())
    }

    /// Reads over a field. Nothing is made of it, unless it is to be kept.
    fn skip(&mut self, first: u8, block: &mut &[u8], spare: &mut Vec<u8>) -> Result<(), Wrong> {
        if first & 0x80 != 0 {
            return self.indexed(number(block, 7)?).map(drop).ok_or(Wrong::Index);
        }
        if first & 0x40 != 0 {
            return self.field(first, block).map(drop);
        }
        match number(block, 4)? {
            0 => skip(block, spare)?,
            index => self.name(index).map(drop).ok_or(Wrong::Index)?,
        }
        skip(block, spare)
    }

    fn field(&mut self, first: u8, block: &mut &[u8]) -> Result<Field, Wrong> {
        if first & 0x80 != 0 {
            return self.indexed(number(block, 7)?).cloned().ok_or(Wrong::Index);
        }
        let kept = first & 0x40 != 0;
        let name = match number(block, if kept { 6 } else { 4 })? {
            0 => string(block)?,
            index => self.name(index).ok_or(Wrong::Index)?,
        };
        let field = Field::of(&name, string(block)?);
        if kept {
            self.keep(name, field.clone());
        }
        Ok(field)
    }

    fn indexed(&self, number: usize) -> Option<&Field> {
        match number.checked_sub(statics::COUNT + 1) {
            Some(place) => self.table.get(place).map(|entry| &entry.field),
            None => statics::field(number),
        }
    }

    fn name(&self, number: usize) -> Option<Bytes> {
        match number.checked_sub(statics::COUNT + 1) {
            Some(place) => self.table.get(place).map(|entry| entry.name.clone()),
            None => statics::NAMED
                .get(number.checked_sub(1)?)
                .map(|(name, _)| Bytes::from_static(name.as_bytes())),
        }
    }

    /// Keeps a field; one that is larger than the table empties it and is not kept.
    fn keep(&mut self, name: Bytes, field: Field) {
        self.shrink(self.most.saturating_sub(field.size));
        if field.size <= self.most {
            self.size += field.size;
            self.table.push_front(Entry { name, field });
        }
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.field.size;
        }
    }
}

/// A number whose first so many bits are in the first byte (§5.1).
fn number(block: &mut &[u8], bits: u8) -> Result<usize, Wrong> {
    let full = (1usize << bits) - 1;
    let mut number = usize::from(byte(block)?) & full;
    if number < full {
        return Ok(number);
    }
    for shift in [0, 7, 14, 21] {
        let next = byte(block)?;
        number += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Wrong::Number)
}

fn string(block: &mut &[u8]) -> Result<Bytes, Wrong> {
    let (bytes, huffman) = written(block)?;
    if !huffman {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    let mut plain = Vec::with_capacity(bytes.len() * 8 / 5); // no word is shorter than five bits
    huffman::decode(bytes, &mut plain)?;
    Ok(Bytes::from(plain.into_boxed_slice()))
}

/// Reads over a string; `spare` is written on.
fn skip(block: &mut &[u8], spare: &mut Vec<u8>) -> Result<(), Wrong> {
    let (bytes, huffman) = written(block)?;
    spare.clear();
    if huffman { huffman::decode(bytes, spare) } else { Ok(()) }
}

/// A string as it is written, and whether in the Huffman code.
fn written<'a>(block: &mut &'a [u8]) -> Result<(&'a [u8], bool), Wrong> {
    let huffman = block.first().ok_or(Wrong::Short)? & 0x80 != 0;
    let length = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Wrong::Short)?;
    *block = rest;
    Ok((bytes, huffman))
}

fn byte(block: &mut &[u8]) -> Result<u8, Wrong> {
    let (first, rest) = block.split_first().ok_or(Wrong::Short)?;
    *block = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::Said, *};

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Wrong> {
        let mut fields = Vec::new();
        decoder.decode(block, |field| {
            fields.push(shown(&field));
            true
        })?;
        Ok(fields)
    }

    fn shown(field: &Field) -> String {
        match &field.said {
            Said::Pseudo(pseudo, value) => format!("{pseudo:?}={}", String::from_utf8_lossy(value)),
            Said::Field(name, value) => format!("{name}={}", value.to_str().unwrap()),
            Said::Nonsense => "nonsense".to_owned(),
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 7541, appendix C.3 and C.4: the same three requests, plain and in the Huffman code.
    #[test]
    fn the_requests_of_the_rfc_are_read_with_their_table() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            let sizes: Vec<usize> = blocks
                .iter()
                .zip([
                    vec!["Method=GET", "Scheme=http", "Path=/", "Authority=www.example.com"],
                    vec![
                        "Method=GET",
                        "Scheme=http",
                        "Path=/",
                        "Authority=www.example.com",
                        "cache-control=no-cache",
                    ],
                    vec![
                        "Method=GET",
                        "Scheme=https",
                        "Path=/index.html",
                        "Authority=www.example.com",
                        "custom-key=custom-value",
                    ],
                ])
                .map(|(block, fields)| {
                    assert_eq!(read(&mut decoder, &hex(block)).unwrap(), fields);
                    decoder.size
                })
                .collect();
            assert_eq!(sizes, [57, 110, 164]);
        }
    }

    #[test]
    fn a_full_table_lets_its_oldest_go_and_a_field_larger_than_it_empties_it() {
        let mut decoder = Decoder::default();
        // The table is made 80 bytes large: two of three fields of 34 bytes stay.
        let block = hex("3f31 4001 6101 31 4001 6201 32 4001 6301 33");
        assert_eq!(read(&mut decoder, &block).unwrap(), ["a=1", "b=2", "c=3"]);
        assert_eq!(read(&mut decoder, &[0xbe, 0xbf]).unwrap(), ["c=3", "b=2"]);
        assert_eq!(read(&mut decoder, &[0xc0]), Err(Wrong::Index));
        let large = [&[0x40, 1, b'd', 60][..], &[b'x'; 60]].concat();
        read(&mut decoder, &large).unwrap();
        assert_eq!((decoder.size, read(&mut decoder, &[0xbe])), (0, Err(Wrong::Index)));
    }

    #[test]
    fn what_is_not_wanted_is_read_over_for_the_table_and_for_what_is_wrong_with_it() {
        let skipped = |decoder: &mut Decoder, block: &str| {
            let mut taken = 0;
            let read = decoder.decode(&hex(&format!("82 {block}")), |_| {
                taken += 1;
                false
            });
            read.map(|()| taken)
        };
        let mut decoder = Decoder::default();
        // Two that are kept, around some that are not: by name, by number, in the Huffman code.
        assert_eq!(
            skipped(&mut decoder, "4001 6101 31 0001 7801 79 0801 79 87 0081 1f01 79 4001 6201 32"),
            Ok(1)
        );
        assert_eq!(read(&mut decoder, &[0xbe, 0xbf]).unwrap(), ["b=2", "a=1"]);
        for (block, wrong) in [
            ("c0", Wrong::Index),
            ("0f ff ff ff ff 7f", Wrong::Number),
            ("0f40 01 62", Wrong::Index),
            ("00 05 61", Wrong::Short),
            ("00 01 61", Wrong::Short),
            ("00 81 ff 01 62", Wrong::Huffman),
            ("20", Wrong::Resize),
        ] {
            assert_eq!(skipped(&mut decoder, block), Err(wrong), "{block}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused_for_its_reason() {
        for (block, wrong) in [
            ("80", Wrong::Index),                 // there is no number 0
            ("be", Wrong::Index),                 // nothing was kept
            ("7f", Wrong::Short),                 // a number that does not end
            ("ff ff ff ff ff 7f", Wrong::Number), // one that is endless
            ("00 05 61", Wrong::Short),           // a name cut off
            ("00 01 61", Wrong::Short),           // no value
            ("00 81 ff 01 62", Wrong::Huffman),   // a name that is no code
            ("82 20", Wrong::Resize),             // a table resized in the middle
            ("3f e2 1f", Wrong::Resize),          // a table of 4,097
        ] {
            assert_eq!(read(&mut Decoder::default(), &hex(block)), Err(wrong), "{block}");
        }
    }

    #[test]
    fn a_field_that_says_nonsense_is_kept_like_others() {
        let mut decoder = Decoder::default();
        for (name, value) in
            [("A", "1"), ("a", " 1"), ("a", "1\t"), ("a b", "1"), ("a\"b", "1"), ("a", "1\n"), ("", "1")]
        {
            let lengths = [name.len(), value.len()].map(|length| u8::try_from(length).unwrap());
            let block = [&[0x40, lengths[0]], name.as_bytes(), &[lengths[1]], value.as_bytes()].concat();
            assert_eq!(read(&mut decoder, &block).unwrap(), ["nonsense"], "{name:?} {value:?}");
            assert_eq!(read(&mut decoder, &[0xbe]).unwrap(), ["nonsense"]);
        }
    }
}
