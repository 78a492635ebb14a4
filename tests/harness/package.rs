//! App packages as developers make them, and as they should never be.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use md5::{Digest, Md5};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::workshop;

/// A zip archive in the making.
pub struct Package {
    zip: ZipWriter<Cursor<Vec<u8>>>,
}

impl Default for Package {
    fn default() -> Self {
        Self { zip: ZipWriter::new(Cursor::default()) }
    }
}

impl Package {
    /// The probe as `bin/app`.
    ///
    /// # Panics
    /// When the probe isn't built.
    #[must_use]
    pub fn probe() -> Self {
        Self::default().program("bin/app", &workshop::program("nexushub-probe"))
    }

    /// With a file.
    ///
    /// # Panics
    /// When the archive refuses it.
    #[must_use]
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.zip.start_file(name, options(0o644)).unwrap();
        self.zip.write_all(content).unwrap();
        self
    }

    /// With a file of nothing but zeros, packed as tightly as can be.
    ///
    /// # Panics
    /// When the archive refuses it.
    #[must_use]
    pub fn zeros(mut self, name: &str, length: usize) -> Self {
        self.zip.start_file(name, options(0o644).compression_method(CompressionMethod::Deflated)).unwrap();
        self.zip.write_all(&vec![0; length]).unwrap();
        self
    }

    /// With an executable file.
    ///
    /// # Panics
    /// When the archive refuses it.
    #[must_use]
    pub fn program(mut self, name: &str, from: &Path) -> Self {
        self.zip.start_file(name, options(0o755)).unwrap();
        self.zip.write_all(&fs::read(from).unwrap()).unwrap();
        self
    }

    /// With a symbolic link.
    ///
    /// # Panics
    /// When the archive refuses it.
    #[must_use]
    pub fn link(mut self, name: &str, target: &str) -> Self {
        self.zip.add_symlink(name, target, options(0o777)).unwrap();
        self
    }

    /// The archive's bytes.
    ///
    /// # Panics
    /// When it can't be finished.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        self.zip.finish().unwrap().into_inner()
    }
}

/// A tar of these names, contents and modes, compressed with Zstandard.
///
/// # Panics
/// When a name does not fit into a tar.
#[must_use]
pub fn tar_zst(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap()
}

/// Stored, not deflated: packing is not what is tested, and slow in a debug build.
fn options(mode: u32) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .unix_permissions(mode)
        .large_file(false)
}

/// MD5 in lower-case hexadecimal digits, as the contract wants it.
#[must_use]
pub fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256, as resumable uploads announce it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    sha2::Sha256::digest(bytes).to_vec()
}
