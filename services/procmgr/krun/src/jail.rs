//! The file tree of keeper and VMM: libkrun's file server follows what a guest says, so nothing else of the host is there.
//!
//! ```text
//! /app  release, read-only     /usr  the host's, read-only    /run/app      where the VMM makes the app's socket
//! /db   data                   /lib  the guest's kernel       /run/control  the agent's word
//!                                                            /run/inward   the platform's entrance
//! /dev/kvm                     /proc  of this pid namespace
//! ```

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat, mknod};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, chdir, chown, fchownat, linkat, pivot_root, unlinkat};

use crate::args::Options;
use crate::user::Owner;
use crate::watch::Guest;

/// The guest's kernel, as the VMM finds it.
pub(crate) const KERNEL: &str = "/lib/libkrunfw.so.5";
/// The app's socket, as the VMM makes it.
pub(crate) const APP_SOCKET: &str = "/run/app/socket";
/// The agent's, as the keeper makes it.
pub(crate) const CONTROL_SOCKET: &str = "/run/control";
/// The platform's internal entrance, as the VMM finds it.
pub(crate) const INWARD_SOCKET: &str = "/run/inward";
/// The app's socket in the generation's folder, and the folder there that is the VMM's own.
const SOCKET: &str = "vsock.sock";
const OWN: &str = "vsock";
/// Where the process manager finds there what the guest said of its inside: three numbers.
const GUEST: &str = "guest";
/// As long as any such line: each replaces the one before as a whole.
const GUEST_BYTES: usize = 64;

const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NONE: Option<&str> = None;

/// What stays reachable of the generation's folder: by the keeper, by no path.
#[derive(Debug)]
pub(crate) struct Jail {
    generation: Option<OwnedFd>,
    pub(crate) control: UnixListener,
    /// What the app says to the platform; taken by who serves it.
    pub(crate) inward: Option<UnixListener>,
}

impl Jail {
    /// Enters it, for good. `base`: with the host's `/usr`.
    pub(crate) fn enter(options: &Options, kernel: &Path, base: bool, owner: Owner) -> io::Result<Self> {
        tell(unshare(CloneFlags::CLONE_NEWNS), "make a mount namespace")?;
        tell(mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE), "part the mounts")?;
        if let Some(data) = options.data.as_ref().filter(|_| owner.foreign) {
            nexushub_volume::bound(data, options.data_bytes)?;
            nexushub_volume::own(data, owner.uid, owner.gid)?;
        }
        let folder = |path: &Option<PathBuf>| path.as_deref().map(opened).transpose();
        let (release, data, generation) =
            (folder(&options.release)?, folder(&options.data)?, folder(&options.dir)?);
        let usr = Some(Path::new("/usr")).filter(|_| base).map(opened).transpose()?;
        let (kernel, kvm) = (opened(kernel)?, opened(Path::new("/dev/kvm"))?);
        let own = generation.as_ref().map(|generation| own_folder(generation, owner)).transpose()?;

        let at = options.dir.as_deref().unwrap_or(Path::new("/tmp"));
        let size = Some("mode=755,size=1m,nr_inodes=64");
        tell(mount(Some("jail"), at, Some("tmpfs"), MsFlags::MS_NOSUID, size), "make the jail")?;
        let place = |name: &str| at.join(name);
        for name in ["app", "db", "dev", "lib", "proc", "run", "run/app", "usr"] {
            fs::create_dir(place(name))?;
        }
        let still = QUIET | MsFlags::MS_RDONLY;
        for (source, name, flags) in [
            (&release, "app", still),
            (&usr, "usr", still),
            (&data, "db", QUIET | MsFlags::MS_NOEXEC),
            (&own, "run/app", QUIET | MsFlags::MS_NOEXEC),
        ] {
            source.as_ref().map_or(Ok(()), |source| bind(source, &place(name), flags))?;
        }
        let library = at.join(KERNEL.trim_start_matches('/'));
        fs::write(&library, "")?;
        bind(&kernel, &library, still)?;
        device(&kvm, &place("dev/kvm"), owner)?;
        processes(&place("proc"))?;
        let [control, inward] = [listener(&place("run/control"))?, listener(&place("run/inward"))?];
        control.set_nonblocking(true)?;
        move_in(at)?;
        Ok(Self { generation, control, inward: Some(inward) })
    }

    /// Gives the app's socket its name in the generation's folder. It is the socket itself that gets the name, whatever the
    /// VMM makes of its own folder afterwards.
    pub(crate) fn publish(&self) -> io::Result<()> {
        let Some(folder) = &self.generation else { return Ok(()) };
        let own = openat(folder, OWN, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let name = Path::new(APP_SOCKET).file_name().unwrap_or_default();
        tell(linkat(own, name, folder, SOCKET, AtFlags::empty()), "publish the app's socket")?;
        let kind = fstatat(folder, SOCKET, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode;
        if kind & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits() {
            return Ok(());
        }
        let _ = unlinkat(folder, SOCKET, UnlinkatFlags::NoRemoveDir);
        Err(io::Error::other("the virtual machine made no socket for its app"))
    }

    /// Leaves what the guest said of its inside. That it can't be, as on a full disk, ends no app.
    pub(crate) fn note(&self, guest: Guest) {
        let Some(folder) = &self.generation else { return };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let Ok(file) = openat(folder, GUEST, flags, Mode::S_IRUSR | Mode::S_IWUSR) else { return };
        let Guest { memory_bytes, processes, oom_kills } = guest;
        let line = format!("{:<1$}\n", format!("{memory_bytes} {processes} {oom_kills}"), GUEST_BYTES - 1);
        let _ = fs::File::from(file).write_all_at(line.as_bytes(), 0);
    }

    /// Takes the app's socket away.
    pub(crate) fn withdraw(&self) {
        if let Some(folder) = &self.generation {
            sweep(folder);
        }
    }
}

/// A socket that the VMM may connect to.
fn listener(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Nothing of an earlier machine's: libkrun does not start where its socket exists.
fn sweep(generation: &OwnedFd) {
    let _ = unlinkat(generation, SOCKET, UnlinkatFlags::NoRemoveDir);
    let socket = Path::new(OWN).join(Path::new(APP_SOCKET).file_name().unwrap_or_default());
    let _ = unlinkat(generation, &socket, UnlinkatFlags::NoRemoveDir);
    let _ = unlinkat(generation, OWN, UnlinkatFlags::RemoveDir);
}

/// The one folder of the generation's that the VMM may write to.
fn own_folder(generation: &OwnedFd, owner: Owner) -> io::Result<OwnedFd> {
    sweep(generation);
    tell(mkdirat(generation, OWN, Mode::S_IRWXU), "make the VMM's folder")?;
    if owner.foreign {
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        tell(fchownat(generation, OWN, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW), "give the VMM its folder")?;
    }
    Ok(openat(generation, OWN, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn opened(path: &Path) -> io::Result<OwnedFd> {
    tell(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()), &format!("open {}", path.display()))
}

/// The path under which a mount is found by its descriptor.
fn held(source: &impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(source.as_fd().as_raw_fd().to_string())
}

fn bind(source: &OwnedFd, target: &Path, flags: MsFlags) -> io::Result<()> {
    let what = format!("mount {}", target.display());
    tell(mount(Some(&held(source)), target, NONE, MsFlags::MS_BIND, NONE), &what)?;
    // A mount that a user namespace has inherited keeps what it forbids.
    let had = fstatvfs(source).map(|stat| stat.flags()).unwrap_or(FsFlags::empty());
    let flags = flags | nexushub_volume::kept(had) | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    tell(mount(NONE, target, NONE, flags, NONE), &what)
}

/// `/dev/kvm`: as root a node that belongs to the VMM, else the host's own, which this user has to have access to.
fn device(kvm: &OwnedFd, target: &Path, owner: Owner) -> io::Result<()> {
    let stat = fs::metadata(held(kvm))?;
    if !stat.file_type().is_char_device() {
        return Err(io::Error::other("/dev/kvm is no device"));
    }
    if owner.foreign {
        tell(mknod(target, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, stat.rdev()), "make /dev/kvm")?;
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        return tell(chown(target, uid, gid), "give the VMM /dev/kvm");
    }
    let usable = fs::File::options().read(true).write(true).open(held(kvm));
    usable.map_err(|error| io::Error::other(format!("could not open /dev/kvm: {error}")))?;
    fs::write(target, "")?;
    tell(mount(Some(&held(kvm)), target, NONE, MsFlags::MS_BIND, NONE), "mount /dev/kvm")
}

/// `/proc`, for `/proc/self/fd`, with nothing but processes where the kernel can do that.
fn processes(target: &Path) -> io::Result<()> {
    let flags = QUIET | MsFlags::MS_NOEXEC;
    let new = |data| mount(Some("proc"), target, Some("proc"), flags, data);
    tell(new(Some("subset=pid")).or_else(|_: Errno| new(NONE)), "mount /proc")
}

fn move_in(at: &Path) -> io::Result<()> {
    let still = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    tell(mount(NONE, at, NONE, still, NONE), "make the jail read-only")?;
    let moved =
        chdir(at).and_then(|()| pivot_root(".", ".")).and_then(|()| umount2(".", MntFlags::MNT_DETACH));
    tell(moved.and_then(|()| chdir("/")), "move into the jail")
}

fn tell<T>(done: nix::Result<T>, what: &str) -> io::Result<T> {
    done.map_err(|error| io::Error::other(format!("could not {what}: {}", error.desc())))
}
