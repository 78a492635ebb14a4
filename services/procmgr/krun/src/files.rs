//! The two files that a machine is made of beside the app's: the agent and the library with the guest's kernel.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::{env, fs::File, io, io::Read as _, ptr, slice};

use nix::libc;

const AGENT: &str = "nexushub-agent";
const KERNEL: &str = "libkrunfw.so.5";
/// Where `dist/libkrunfw` puts it for everybody.
const SHARED: &str = "/usr/lib/nexushub";
/// Bytes of a library that tell of the rest.
const HEAD: u64 = 4096;
/// How a part that is mapped begins (`PT_LOAD`).
const LOADED: [u8; 4] = [1, 0, 0, 0];

/// The agent's program, which is installed beside this one; mapped, as every machine here holds the same.
pub(crate) fn agent() -> io::Result<&'static [u8]> {
    let path = beside()?.join(AGENT);
    File::open(&path).and_then(|file| mapped(&file)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "there is no {}: build it with dist/build, on a machine that links statically",
            path.display()
        )),
        _ => io::Error::other(format!("could not read {}: {error}", path.display())),
    })
}

/// The library with the guest's kernel.
pub(crate) fn kernel(named: Option<&Path>) -> io::Result<PathBuf> {
    let path = match named {
        Some(named) => Some(named.to_path_buf()).filter(|path| path.is_file()),
        None => [beside()?, PathBuf::from(SHARED)]
            .map(|folder| folder.join(KERNEL))
            .into_iter()
            .find(|path| path.is_file()),
    };
    let path = path.ok_or_else(missing)?;
    match is_whole(&path) {
        Err(error) => Err(io::Error::other(format!("could not read {}: {error}", path.display()))),
        Ok(false) => Err(cut_short(&path)),
        Ok(true) => Ok(path),
    }
}

/// Whether a file holds all that its header has the loader map (elf(5)). Without, it is mapped all the same, and ends with SIGBUS whoever
/// looks at what isn't there. What is no such file is the loader's to refuse.
fn is_whole(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head)?;
    Ok(mapped_end(&head).is_none_or(|end| end <= length))
}

/// The end of what is mapped of a 64-bit ELF file, and of the table that says so, by the file's head.
fn mapped_end(head: &[u8]) -> Option<u64> {
    let short = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let long = |bytes: &[u8], at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let table = long(head.strip_prefix(b"\x7fELF").and(Some(head))?, 32)?;
    let (size, count) = (short(54)?, short(56)?);
    let parts = head.get(usize::try_from(table).ok()?..).unwrap_or_default().chunks_exact(size.max(1).into());
    let mapped = parts.take(count.into()).filter(|part| part.starts_with(&LOADED));
    let ends = mapped.filter_map(|part| long(part, 8)?.checked_add(long(part, 32)?));
    ends.chain(table.checked_add(u64::from(size) * u64::from(count))).max()
}

/// For ever. Who installs programs puts new files in the place of old ones, so this one never changes.
fn mapped(file: &File) -> io::Result<&'static [u8]> {
    let length = file.metadata()?.len().try_into().map_err(io::Error::other)?;
    // SAFETY: a new mapping of a whole file, which is never unmapped; the slice is as long as the file.
    unsafe {
        let at = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(slice::from_raw_parts(at.cast::<u8>(), length))
    }
}

fn cut_short(path: &Path) -> io::Error {
    let path = path.display();
    io::Error::other(format!("the guest kernel {path} is not all there: fetch it anew with dist/libkrunfw"))
}

fn missing() -> io::Error {
    io::Error::other(format!("there is no guest kernel ({KERNEL}): fetch it with dist/libkrunfw"))
}

fn beside() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn a_guest_kernel_that_was_cut_short_is_told_as_such() {
        let whole = fs::read(env::current_exe().unwrap()).unwrap();
        let end = usize::try_from(mapped_end(&whole[..4096]).unwrap()).unwrap();
        let path = env::temp_dir().join(format!("guest-kernel-{}", std::process::id()));
        for (length, told) in [(end, None), (end - 1, Some("is not all there")), (100, Some("not all there"))]
        {
            fs::write(&path, &whole[..length]).unwrap();
            let said = kernel(Some(&path)).err().map(|error| error.to_string());
            assert_eq!(said.is_some(), told.is_some(), "{length}: {said:?}");
            assert!(told.is_none_or(|told| said.as_ref().unwrap().contains(told)), "{said:?}");
        }
        fs::write(&path, "no library").unwrap();
        assert!(kernel(Some(&path)).is_ok(), "the loader says why");
        fs::remove_file(&path).unwrap();
        assert!(kernel(Some(&path)).unwrap_err().to_string().contains("there is no guest kernel"));
    }
}
