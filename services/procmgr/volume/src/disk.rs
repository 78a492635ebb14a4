//! The bound on an app's data, where root builds the box: a file system of its own in a file of the data folder, mounted over that
//! folder where only the box sees it.
//!
//! ```text
//! <data>/.image      the file system; sparse, grown when the bound grows, never shrunk
//!        .image.new  on its way to be it
//!        .plain/     the data of before there was one, on their way into it
//! ```
//! Killed at any step, the next start goes on: an image appears under its name only when it is whole, be it the first with all
//! of `.plain` in it or a larger one in place of that, and `.plain` is removed only after that. (It grows as a copy, beside: the
//! kernel grows one that is mounted for holders of `CAP_SYS_RESOURCE` only, and a program that is killed may leave it torn.) The mount lives in the box's namespace and the device lets go of the file by itself, so
//! both end with the box. Two boxes of one folder share one device, since two would corrupt what they both write.
//!
//! The app owned the folder while it was plain, so nothing in it is believed but what belongs to root.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fmt, io};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::{errno::Errno, libc};

const IMAGE: &str = ".image";
const NEW: &str = ".image.new";
const PLAIN: &str = ".plain";
/// Where the machine's programs for file systems are.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";
/// Its blocks, so that a size means the same number of them always.
const BLOCK: u64 = 4096;
/// Below this it could not hold its own tables.
const LEAST: u64 = 1 << 20;
/// The disk of a trial.
const TRIED: u64 = 8 << 20;
/// A device may be taken by somebody else between asking for a free one and taking it.
const TRIES: u32 = 64;

/// Bounds what may be kept in this folder to so many bytes, 0 for none; a folder that once was bounded stays so. To be called in
/// a mount namespace of its own.
///
/// # Errors
/// What could not be done, and why: there is no loop device or no `mkfs.ext4`, the disk is full, or what lies there is not ours.
pub fn bound(data: &Path, bytes: u64) -> io::Result<()> {
    let path = data.join(IMAGE);
    if bytes == 0 && fs::symlink_metadata(&path).is_err() {
        return Ok(());
    }
    let turn = File::open(data).because(|| format!("open {}", data.display()))?;
    turn.lock().because(|| "wait for another start with the same data")?;
    if fs::symlink_metadata(&path).is_err() {
        make(data, bytes.max(LEAST))?;
    }
    forget_plain(data)?;
    let (device, file) = attached(data, bytes)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("discard,noinit_itable,errors=remount-ro");
    mount(Some(&device), data, Some("ext4"), flags, options).because(|| "mount its data")?;
    drop(file); // the mount holds the device from here on
    let _ = fs::remove_dir(data.join("lost+found")); // the app's folder is its own
    Ok(())
}

/// Whether this machine lets us: tries it in this empty folder, in a mount namespace of this process's own.
///
/// # Errors
/// Why it can't be done.
pub fn trial(folder: &Path) -> io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).because(|| "make a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).because(|| "keep mounts private")?;
    bound(folder, TRIED)?;
    umount2(folder, MntFlags::MNT_DETACH).because(|| "let go of a disk")
}

/// Makes the image, with what the folder holds in it.
fn make(data: &Path, bytes: u64) -> io::Result<()> {
    let (new, plain) = (data.join(NEW), data.join(PLAIN));
    put_aside(data, &plain).because(|| "put its data aside")?;
    let made = remove_if_there(&new)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new));
    let image = made.because(|| "make a file for its data")?;
    image.set_len(bytes / BLOCK * BLOCK).because(|| "make a file for its data")?;
    let mut mkfs = tool("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0", "-b", &BLOCK.to_string()]);
    mkfs.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d"]).arg(&plain).arg(&new);
    done(mkfs, &[0]).map_err(|why| io::Error::other(format!("{why} (for a disk of {bytes} bytes)")))?;
    put_in_place(data)?;
    // Nothing in here is the app's from now on.
    chown(data, Some(0), Some(0)).because(|| "own the folder of its data")
}

/// A larger one in place of the image.
fn grow(data: &Path, bytes: u64) -> io::Result<()> {
    let new = data.join(NEW);
    remove_if_there(&new).because(|| "make a larger disk")?;
    let mut copy = tool("cp");
    copy.args(["--sparse=always", "--reflink=auto", "--preserve=mode"]).arg(data.join(IMAGE)).arg(&new);
    done(copy, &[0])?;
    let larger =
        OpenOptions::new().write(true).open(&new).and_then(|image| image.set_len(bytes / BLOCK * BLOCK));
    larger.because(|| "make a larger disk")?;
    // What it was mounted with when the machine lost its power is put in order first; 1: that was needed.
    for (name, option, good) in [("e2fsck", "-fp", &[0, 1][..]), ("resize2fs", "-p", &[0][..])] {
        let mut command = tool(name);
        command.arg(option).arg(&new);
        done(command, good)?;
    }
    put_in_place(data)
}

/// A program of the machine's, which knows nothing of the app's environment.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", PATH).stdin(Stdio::null());
    command
}

fn done(mut command: Command, good: &[i32]) -> io::Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().because(|| format!("run {name}"))?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let why = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(io::Error::other(format!("could not make a disk of its data: {name}: {why}")))
}

/// Gives the new image its name, once it is on disk.
fn put_in_place(data: &Path) -> io::Result<()> {
    let new = data.join(NEW);
    let kept =
        File::open(&new).and_then(|image| image.sync_all()).and_then(|()| fs::rename(&new, data.join(IMAGE)));
    kept.and_then(|()| File::open(data)?.sync_all()).because(|| "keep the disk of its data")
}

/// Moves everything in the folder into one of its folders.
fn put_aside(data: &Path, plain: &Path) -> io::Result<()> {
    match fs::symlink_metadata(plain) {
        Ok(found) if found.is_dir() && found.uid() == 0 => {}
        Ok(_) => return Err(io::Error::other(format!("{} is not the platform's", plain.display()))),
        Err(_) => fs::DirBuilder::new().mode(0o700).create(plain)?,
    }
    for entry in fs::read_dir(data)? {
        let name = entry?.file_name();
        if name != PLAIN && name != NEW {
            fs::rename(data.join(&name), plain.join(&name))?;
        }
    }
    Ok(())
}

/// All of it is in the image.
fn forget_plain(data: &Path) -> io::Result<()> {
    match crate::remove(&data.join(PLAIN)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).because(|| "remove what its disk holds")
        }
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the image, if it is ours.
fn open(data: &Path) -> io::Result<File> {
    let path = data.join(IMAGE);
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let image = opened.because(|| "open the disk of its data")?;
    let found = image.metadata().because(|| "open the disk of its data")?;
    match found.is_file() && found.uid() == 0 && found.nlink() == 1 {
        true => Ok(image),
        false => Err(io::Error::other(format!("{} is not the platform's", path.display()))),
    }
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Default)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u64; 8]; 2],
    key: [u64; 4],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Default)]
struct Configuration {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
/// The device lets go of its file with its last user.
const AUTOCLEAR: u32 = 4;
/// Nothing is kept in memory twice.
const DIRECT_IO: u32 = 16;

/// A device that stands for the image: the one that there is, or a new one, for as long as the file is open. Where another box
/// uses the image, it can't grow now.
fn attached(data: &Path, bytes: u64) -> io::Result<(PathBuf, File)> {
    let image = open(data)?;
    if let Some(found) = standing(&image).because(|| "look for the device of its data")? {
        return Ok(found);
    }
    if image.metadata().because(|| "measure its data")?.len() >= bytes / BLOCK * BLOCK {
        return attach(&image);
    }
    grow(data, bytes)?;
    attach(&open(data)?)
}

/// The device that stands for the image already.
fn standing(image: &File) -> io::Result<Option<(PathBuf, File)>> {
    let wanted = image.metadata()?;
    for name in devices()? {
        let path = Path::new("/dev").join(name);
        let Ok(device) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        let mut info = Info::default();
        // SAFETY: the kernel fills a loop_info64, which this is.
        let told = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
        if told == 0 && (info.device, info.inode) == (wanted.dev(), wanted.ino()) {
            return Ok(Some((path, device)));
        }
    }
    Ok(None)
}

/// The loop devices that stand for a file of that name.
fn devices() -> io::Result<Vec<std::ffi::OsString>> {
    let stands = |device: &Path| {
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        Path::new(file.trim_end()).ends_with(IMAGE)
    };
    let all = fs::read_dir("/sys/block")?.flatten();
    Ok(all.filter(|entry| stands(&entry.path())).map(|entry| entry.file_name()).collect())
}

fn attach(image: &File) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .because(|| "open /dev/loop-control")?;
    for _ in 0..TRIES {
        // SAFETY: the call takes no argument.
        let free = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) });
        let path = PathBuf::from(format!("/dev/loop{}", free.because(|| "get a loop device")?));
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let device = opened.because(|| format!("open {}", path.display()))?;
        let wanted = Configuration {
            file: image.as_raw_fd().cast_unsigned(),
            info: Info { flags: AUTOCLEAR | DIRECT_IO, ..Info::default() },
            ..Configuration::default()
        };
        // SAFETY: the kernel reads a loop_config, which this is and which outlives the call.
        match Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const wanted) }) {
            Err(Errno::EBUSY) => {}
            done => return done.map(|_| (path, device)).because(|| "attach the disk of its data"),
        }
    }
    Err(io::Error::other("could not get a loop device: each is taken by somebody else"))
}

/// Says what could not be done when it could not.
trait Because<T> {
    fn because<W: fmt::Display>(self, what: impl FnOnce() -> W) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Because<T> for Result<T, E> {
    fn because<W: fmt::Display>(self, what: impl FnOnce() -> W) -> io::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let cause =
                error.raw_os_error().map_or_else(|| error.to_string(), |n| Errno::from_raw(n).desc().into());
            io::Error::other(format!("could not {}: {cause}", what()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_is_given_has_the_size_that_it_reads() {
        assert_eq!((size_of::<Info>(), size_of::<Configuration>()), (232, 304));
    }
}
