//! A package that is a tar compressed with Zstandard. Read as it streams by, in memory that no archive can swell: the window is bounded,
//! and so is what a header may say on further pages (long names of GNU tar, records of pax).
//!
//! Strict on purpose: one frame, one way to name an entry, no sizes that contradict each other, nothing but zeros behind the end.

use std::io::{self, BufRead, Read};

use tar::{Archive, Entry, EntryType, PaxExtensions};
use zstd::{Decoder, zstd_safe::get_frame_content_size};

use super::{
    UnpackError, Unpacking,
    judge::{Found, Sort, shown},
};

/// What a frame of Zstandard begins with.
pub(crate) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest window, as a power of two: 8 MiB, what every reader has to have (RFC 8878), and what levels up to 19 stay below.
const WINDOW_LOG: u32 = 23;
/// Longest page of a header.
const PAGE_MAX: u64 = 64 << 10;
/// What one entry may take in a tar besides its content: its header, a page with a header, and what fills blocks up.
const ENTRY_MAX: u64 = 2048 + 512;
/// Zeros at the end of a tar, at most.
const END_MAX: u64 = 1 << 20;

/// Reads all entries of a compressed tar.
pub(crate) fn read<R: BufRead>(mut file: R, unpacking: &mut Unpacking<'_>) -> Result<(), UnpackError> {
    let whole = |error| broken("the archive", error);
    // A frame need not say how much it holds; what was compressed as it came doesn't.
    let said = get_frame_content_size(file.fill_buf().map_err(whole)?).ok().flatten();
    unpacking.ask_for_room(said.unwrap_or(0))?;
    let mut decoder = Decoder::with_buffer(file).map_err(whole)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(whole)?;
    walk(&mut decoder, unpacking)?;
    if decoder.finish().fill_buf().map_err(whole)?.is_empty() {
        return Ok(());
    }
    // Some readers would go on, others would not.
    Err(UnpackError::Archive("tar.zst", "there is something behind its first frame".to_owned()))
}

/// Reads all entries of a tar.
pub(crate) fn walk<R: Read>(tar: R, unpacking: &mut Unpacking<'_>) -> Result<(), UnpackError> {
    let (most, ratio) = (unpacking.most(), unpacking.limits().ratio);
    let besides = u64::from(unpacking.limits().entries).saturating_mul(ENTRY_MAX).saturating_add(END_MAX);
    let mut archive = Archive::new(Bounded { tar, left: most.saturating_add(besides), ratio });
    let entries = archive.entries().map_err(|error| broken("the archive", error))?;
    let (mut named, mut pages) = (None, 0);
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| broken("a header", error))?;
        let kind = entry.header().entry_type();
        if let Some(page) = Page::of(kind) {
            pages += 1;
            if pages > 2 * unpacking.limits().entries {
                let limit = unpacking.limits().entries;
                return Err(UnpackError::Entries { found: u64::from(pages), limit });
            }
            if let Some(name) = page.name(&mut entry)? {
                let twice =
                    || UnpackError::Archive("tar.zst", format!("{}: it is named twice", shown(&name)));
                if named.replace(name.clone()).is_some() {
                    return Err(twice());
                }
            }
            continue;
        }
        let name = named.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        take(&name, &mut entry, unpacking)?;
    }
    if named.is_some() {
        return Err(UnpackError::Archive("tar.zst", "it ends after a name; was it cut off?".to_owned()));
    }
    only_zeros(archive.into_inner())
}

fn take<R: Read>(
    name: &[u8],
    entry: &mut Entry<'_, R>,
    unpacking: &mut Unpacking<'_>,
) -> Result<(), UnpackError> {
    let header = entry.header();
    let sort = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Sort::Other,
        EntryType::Regular | EntryType::Continuous => Sort::File,
        EntryType::Directory => Sort::Folder,
        EntryType::Symlink => Sort::Symlink,
        EntryType::Link => Sort::HardLink,
        EntryType::GNUSparse => Sort::Sparse,
        _ => Sort::Other,
    };
    let mode = header.mode().map_err(|error| broken(&shown(name), error))?;
    let size = header.entry_size().map_err(|error| broken(&shown(name), error))?;
    if sort == Sort::Folder && size > 0 {
        return Err(UnpackError::Archive("tar.zst", format!("{}: a folder has no content", shown(name))));
    }
    let read = unpacking.take(&Found { name, sort, mode: Some(mode) }, entry)?;
    if sort == Sort::File && read != size {
        return Err(UnpackError::Archive("tar.zst", format!("{}: it is cut off", shown(name))));
    }
    Ok(())
}

/// What says more of the entry that follows.
enum Page {
    GnuName,
    Pax,
    PaxOfAll,
}

impl Page {
    fn of(kind: EntryType) -> Option<Self> {
        match kind {
            EntryType::GNULongName => Some(Self::GnuName),
            EntryType::XHeader => Some(Self::Pax),
            EntryType::XGlobalHeader => Some(Self::PaxOfAll),
            _ => None,
        }
    }

    /// The name of the entry that follows, if the page says one.
    fn name<R: Read>(&self, entry: &mut Entry<'_, R>) -> Result<Option<Vec<u8>>, UnpackError> {
        let size = entry.header().entry_size().map_err(|error| broken("a header", error))?;
        if size > PAGE_MAX {
            return Err(UnpackError::Archive("tar.zst", format!("a header is longer than {PAGE_MAX} bytes")));
        }
        let mut text = Vec::new();
        entry.take(size).read_to_end(&mut text).map_err(|error| broken("a header", error))?;
        if text.len() as u64 != size {
            return Err(UnpackError::Archive("tar.zst", "a header is cut off".to_owned()));
        }
        match self {
            Self::GnuName => {
                text.pop_if(|last| *last == 0);
                Ok(Some(text))
            }
            Self::Pax => pax(&text, true),
            Self::PaxOfAll => pax(&text, false),
        }
    }
}

/// The name that records of pax give. A record that changes what an entry is, or which is another size, is refused; times, owners and
/// remarks say nothing here.
fn pax(text: &[u8], may_name: bool) -> Result<Option<Vec<u8>>, UnpackError> {
    let (mut name, mut read) = (None, 0);
    for record in PaxExtensions::new(text) {
        let record = record.map_err(|error| broken("a header of pax", error))?;
        let (key, value) = (record.key_bytes(), record.value_bytes());
        let body = key.len() + value.len() + 3; // a blank, `=` and the line end
        read += body + (1..).find(|digits| (body + digits).to_string().len() == *digits).unwrap_or(0);
        match key {
            b"path" if may_name && name.is_none() => name = Some(value.to_vec()),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(UnpackError::Entry(
                    shown(value),
                    "sparse files are not accepted; pack it without --sparse",
                ));
            }
            b"path" | b"linkpath" | b"size" => {
                let why = format!("a header of pax sets {}; pack it with --format=gnu", shown(key));
                return Err(UnpackError::Archive("tar.zst", why));
            }
            _ => {}
        }
    }
    if read != text.len() {
        return Err(UnpackError::Archive("tar.zst", "a header of pax has more than its records".to_owned()));
    }
    Ok(name)
}

/// A tar that ends where it is longer than it may be.
struct Bounded<R> {
    tar: R,
    left: u64,
    ratio: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tar.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(UnpackError::Ratio(self.ratio)))?;
        Ok(read)
    }
}

fn only_zeros<R: Read>(mut rest: R) -> Result<(), UnpackError> {
    let mut buffer = [0; 4096];
    loop {
        match rest.read(&mut buffer).map_err(|error| broken("the end of the archive", error))? {
            0 => return Ok(()),
            read if buffer[..read].iter().all(|byte| *byte == 0) => {}
            _ => return Err(UnpackError::Archive("tar.zst", "there is something behind its end".to_owned())),
        }
    }
}

fn broken(entry: &str, error: io::Error) -> UnpackError {
    if error.to_string().contains("too much memory") {
        let why =
            "it needs a window of more than 8 MiB to be unpacked; compress it without --long and --ultra";
        return UnpackError::Archive("tar.zst", why.to_owned());
    }
    match error.downcast() {
        Ok(ours) => ours,
        Err(error) => UnpackError::Archive("tar.zst", format!("{entry}: {error}")),
    }
}
