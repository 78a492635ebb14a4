//! `key=value` entries, each ended by a separator: the one text shape of spec, record and exit record, written once for all
//! three. Values are bytes, so paths and environments pass unchanged; a value that holds the separator can't be written.
//! A missing entry is none, several are a list, unknown ones are a later version's and passed over; all else is an error.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::{fs::File, io, io::Read as _, path::Path, path::PathBuf};

use crate::{exit::End, record::Process};

/// A file of ours is never longer than this; a longer one is not ours.
const FILE_MAX: u64 = 64 * 1024;

/// What an entry can hold.
pub(crate) trait Value: Sized {
    fn put(&self, values: &mut Vec<Vec<u8>>);
    fn take(values: &[&[u8]]) -> Option<Self>;
}

macro_rules! values {
    ($self:ident => $bytes:expr; $os:ident => $parsed:expr; $($type:ty)*) => {$(
        impl Value for $type {
            fn put(&$self, values: &mut Vec<Vec<u8>>) {
                values.push($bytes.to_vec());
            }
            fn take(values: &[&[u8]]) -> Option<Self> {
                let &[value] = values else { return None };
                let $os = OsString::from_vec(value.to_vec());
                $parsed
            }
        }
    )*};
}
values!(self => self.to_string().as_bytes(); os => os.to_str()?.parse().ok(); String bool u16 u32 u64 i64 Process End);
values!(self => self.as_bytes(); os => Some(os); OsString);
values!(self => self.as_os_str().as_bytes(); os => Some(os.into()); PathBuf);
values!(self => [self.0.as_bytes(), b"=", self.1.as_bytes()].concat(); os => variable(os.as_bytes()); (OsString, OsString));

impl<T: Value> Value for Option<T> {
    fn put(&self, values: &mut Vec<Vec<u8>>) {
        self.iter().for_each(|value| value.put(values));
    }
    fn take(values: &[&[u8]]) -> Option<Self> {
        if values.is_empty() { Some(None) } else { T::take(values).map(Some) }
    }
}

impl<T: Value> Value for Vec<T> {
    fn put(&self, values: &mut Vec<Vec<u8>>) {
        self.iter().for_each(|value| value.put(values));
    }
    fn take(values: &[&[u8]]) -> Option<Self> {
        values.iter().map(|value| T::take(&[value])).collect()
    }
}

/// A struct of such entries. `$check` says what is wrong with one as a whole; it is asked on both sides. With `@`, the file
/// that it is in a generation's folder.
macro_rules! document {
    ($object:literal, $separator:literal, $check:expr, $(@ $file:expr,)? $(#[$about:meta])* $name:ident {
        $($(#[$doc:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl $name {
            /// As bytes for `decode`.
            ///
            /// # Errors
            /// When it would be refused on the other side, or a value holds the separator.
            pub fn encode(&self) -> std::io::Result<Vec<u8>> {
                let mut out = Vec::new();
                $(crate::document::put($object, $separator, stringify!($field), &self.$field, &mut out)?;)*
                let check: fn(&Self) -> Option<&'static str> = $check;
                check(self).map_or(Ok(out), |cause| Err(crate::document::malformed($object, cause)))
            }

            /// From bytes of `encode`.
            ///
            /// # Errors
            /// When it is torn, or anything is missing, given twice or not what it should be.
            pub fn decode(bytes: &[u8]) -> std::io::Result<Self> {
                let entries = crate::document::split($object, $separator, bytes)?;
                let read = Self { $($field: crate::document::take($object, &entries, stringify!($field))?,)* };
                read.encode().map(|_| read)
            }

            $(/// Puts it into the generation's folder, durably, in one step.
            ///
            /// # Errors
            /// When it can't be encoded or written; what was there before is then still there.
            pub fn write(&self, dir: &std::path::Path) -> std::io::Result<()> {
                nexushub_launch::durable::write(&dir.join($file), &self.encode()?, 0o600)
            }

            /// The one in a generation's folder; none when there is none.
            ///
            /// # Errors
            /// When it can't be read or is none.
            pub fn read(dir: &std::path::Path) -> std::io::Result<Option<Self>> {
                let bytes = crate::document::load(&dir.join($file), $object)?;
                bytes.map(|bytes| Self::decode(&bytes)).transpose()
            })?
        }
    };
}
pub(crate) use document;

/// An entry's key and value.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

pub(crate) fn malformed(object: &str, cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{object} is malformed: {cause}"))
}

pub(crate) fn put(object: &str, end: u8, key: &str, value: &impl Value, out: &mut Vec<u8>) -> io::Result<()> {
    let mut values = Vec::new();
    value.put(&mut values);
    for value in values {
        if value.contains(&end) {
            return Err(malformed(object, &format!("{key} holds a separator")));
        }
        out.extend([key.as_bytes(), b"=", &value, &[end]].concat());
    }
    Ok(())
}

pub(crate) fn split<'a>(object: &str, end: u8, bytes: &'a [u8]) -> io::Result<Vec<Entry<'a>>> {
    let body = bytes.strip_suffix(&[end]).ok_or_else(|| malformed(object, "its end is missing"))?;
    let entries = body.split(|byte| *byte == end).map(halves).collect::<Option<_>>();
    entries.ok_or_else(|| malformed(object, "an entry is not key=value"))
}

pub(crate) fn take<T: Value>(object: &str, entries: &[Entry<'_>], key: &str) -> io::Result<T> {
    let own = entries.iter().filter(|(name, _)| *name == key.as_bytes());
    let values: Vec<&[u8]> = own.map(|(_, value)| *value).collect();
    T::take(&values).ok_or_else(|| malformed(object, &format!("{key} is missing or not what it should be")))
}

/// A whole small file; none when there is none.
pub(crate) fn load(path: &Path, object: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    match file.take(FILE_MAX + 1).read_to_end(&mut bytes)? as u64 {
        ..=FILE_MAX => Ok(Some(bytes)),
        _ => Err(malformed(object, "it is too long")),
    }
}

fn halves(entry: &[u8]) -> Option<Entry<'_>> {
    let at = entry.iter().position(|byte| *byte == b'=')?;
    Some((&entry[..at], &entry[at + 1..]))
}

fn variable(entry: &[u8]) -> Option<(OsString, OsString)> {
    halves(entry).map(|(name, value)| (OsStr::from_bytes(name).into(), OsStr::from_bytes(value).into()))
}
