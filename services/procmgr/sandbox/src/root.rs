//! What the app sees as files: a plan, then its execution.
//!
//! ```text
//! /        tmpfs, read-only            /dev      null zero full random urandom, shm (tmpfs, bounded)
//! /app     the release, read-only      /proc     of this box, masked
//! /db      the data                    /etc      generated, read-only
//! /tmp     tmpfs, bounded              /usr ...  the host's, read-only
//! ```
//! The new root is entered first and the host's hangs below it while the plan is carried out, so nothing that is mounted
//! on the way can hide a source.
#![allow(unsafe_code)]

use std::os::unix::{ffi::OsStrExt as _, fs::symlink};
use std::path::{Path, PathBuf};
use std::{ffi::CString, fs, io};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use nix::{errno::Errno, libc, unistd};

use crate::order::Run;
use crate::report::{Because as _, Reason};

/// Where the host's root is until all is in place.
const OLD: &str = "/old";
/// Shared memory is never more.
const SHM_MAX: u64 = 64 << 20;
/// Flags of every mount but devices.
const TAME: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// One thing to put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An empty folder.
    Folder(&'static str),
    /// A file of this text.
    File(&'static str, String),
    /// A symbolic link.
    Link(&'static str, &'static str),
    /// As the host has it: the same link, the folder or file read-only, or nothing.
    Like(&'static str),
    /// Something of the host's.
    Bind {
        /// The host's path.
        from: PathBuf,
        /// The path in the box.
        at: &'static str,
        /// What may be done with it.
        access: Access,
    },
    /// A file system in memory: at, bytes (0: not bounded).
    Memory(&'static str, u64),
    /// The processes of this box.
    Processes,
    /// Nothing to be seen there.
    Masked(&'static str),
    /// Nothing to be written there.
    ReadOnly(&'static str),
}

/// What may be done with something of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Use it as the device that it is.
    Device,
}

/// What the box holds, in order; `inside` are the app's user and group.
#[must_use]
pub fn plan(run: &Run, inside: (u32, u32)) -> Vec<Step> {
    use Step::{Bind, File, Folder, Like, Link, Masked, Memory, Processes, ReadOnly};
    let bind = |from: &Path, at, access| Bind { from: from.into(), at, access };
    let (uid, gid) = inside;
    let mut hosts = String::from("127.0.0.1 localhost internal.yesterday.localhost\n");
    run.hosts.iter().for_each(|line| hosts.extend([line, "\n"]));
    let dns = if run.gateway.is_some() { " dns" } else { "" };
    let resolver = run.gateway.map(|gateway| format!("nameserver {gateway}\n")).unwrap_or_default();
    let mut plan: Vec<_> = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"].map(Like).into();
    plan.extend([
        File("/etc/hosts", hosts),
        File("/etc/hostname", format!("{}\n", run.hostname)),
        File("/etc/passwd", format!("root:x:0:0::/:/bin/sh\napp:x:{uid}:{gid}::/db:/bin/sh\n")),
        File("/etc/group", format!("root:x:0:\napp:x:{gid}:\n")),
        File("/etc/nsswitch.conf", format!("passwd: files\ngroup: files\nhosts: files{dns}\n")),
        File("/etc/resolv.conf", resolver),
    ]);
    plan.extend(["/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/ssl/certs"].map(Like));
    plan.extend(run.ca.iter().map(|ca| bind(ca, "/etc/nexushub/ca.crt", Access::Read)));
    plan.extend(
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
            .map(|device| bind(Path::new(device), device, Access::Device)),
    );
    let shm = if run.tmp_bytes == 0 { SHM_MAX } else { run.tmp_bytes.min(SHM_MAX) };
    plan.extend([
        Link("/dev/fd", "/proc/self/fd"),
        Link("/dev/stdin", "/proc/self/fd/0"),
        Link("/dev/stdout", "/proc/self/fd/1"),
        Link("/dev/stderr", "/proc/self/fd/2"),
        Folder("/run"),
        Link("/var/run", "/run"),
        Link("/var/tmp", "/tmp"),
        bind(&run.release, "/app", Access::Read),
        bind(&run.data, "/db", Access::Write),
        Memory("/dev/shm", shm),
        Memory("/tmp", run.tmp_bytes),
        Processes,
    ]);
    plan.extend(["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"].map(ReadOnly));
    plan.extend(["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list"].map(Masked));
    plan.extend(["/proc/acpi", "/proc/scsi", "/proc/sched_debug", "/proc/latency_stats"].map(Masked));
    plan
}

/// Keeps to this mount namespace what is mounted in it.
pub(crate) fn keep_to_itself() -> Result<(), Reason> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).because(|| "keep mounts private")
}

/// Puts a plan in place and lets go of the host's files. The current folder is then the new root.
pub(crate) fn build(plan: &[Step]) -> Result<(), Reason> {
    let none = None::<&str>;
    // Any folder that every machine has; what it hides is back as soon as the new root is entered.
    let options = Some("mode=755,size=1m,nr_inodes=1k");
    mount(Some("box"), "/tmp", Some("tmpfs"), TAME, options).because(|| "mount a new root")?;
    fs::create_dir("/tmp/old").because(|| "make a place for the old root")?;
    unistd::pivot_root("/tmp", "/tmp/old").because(|| "enter the new root")?;
    unistd::chdir("/").because(|| "enter the new root")?;
    plan.iter().try_for_each(carry_out)?;
    umount2(OLD, MntFlags::MNT_DETACH).because(|| "let go of the old root")?;
    fs::remove_dir(OLD).because(|| "remove the old root's place")?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | TAME;
    mount(none, "/", none, flags, none).because(|| "make the root read-only")
}

fn carry_out(step: &Step) -> Result<(), Reason> {
    let made = |at: &str, done: io::Result<()>| done.because(|| format!("make {at}"));
    match step {
        Step::Folder(at) => made(at, folder(at)),
        Step::File(at, text) => made(at, parent(at).and_then(|()| fs::write(at, text))),
        Step::Link(at, to) => made(at, parent(at).and_then(|()| symlink(to, at))),
        Step::Like(at) => like(at),
        Step::Bind { from, at, access } => bind(&old(from), at, *access),
        Step::Memory(at, bytes) => {
            made(at, folder(at))?;
            // As many files as pages, but a program's usual few always.
            let files = if *bytes == 0 { 0 } else { (bytes / 4096).clamp(1024, 1 << 20) };
            let options = format!("mode=1777,size={bytes},nr_inodes={files}");
            mount(Some("box"), *at, Some("tmpfs"), TAME, Some(options.as_str()))
                .because(|| format!("mount {at}"))
        }
        Step::Processes => {
            made("/proc", folder("/proc"))?;
            let mounted = mount(Some("proc"), "/proc", Some("proc"), TAME | MsFlags::MS_NOEXEC, None::<&str>);
            let masked = mounted == Err(Errno::EPERM) && !unistd::geteuid().is_root();
            let why = if masked { " (is the outer one masked?)" } else { "" };
            mounted.because(|| format!("mount /proc{why}"))
        }
        Step::Masked(at) => match fs::symlink_metadata(at) {
            Err(_) => Ok(()),
            Ok(found) if found.is_dir() => {
                let flags = TAME | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
                let mounted = mount(Some("box"), *at, Some("tmpfs"), flags, Some("size=4k,mode=555"));
                mounted.because(|| format!("mask {at}"))
            }
            Ok(_) => bind(Path::new("/dev/null"), at, Access::Device),
        },
        Step::ReadOnly(at) if !Path::new(at).exists() => Ok(()),
        Step::ReadOnly(at) => bind(Path::new(at), at, Access::Read),
    }
}

/// Where a path of the host is while the box is built.
fn old(path: &Path) -> PathBuf {
    Path::new(OLD).join(path.strip_prefix("/").unwrap_or(path))
}

fn folder(at: &str) -> io::Result<()> {
    fs::create_dir_all(at)
}

fn parent(at: &str) -> io::Result<()> {
    fs::create_dir_all(Path::new(at).parent().unwrap_or(Path::new("/")))
}

fn like(at: &str) -> Result<(), Reason> {
    let source = old(Path::new(at));
    match fs::symlink_metadata(&source) {
        Err(_) => Ok(()),
        Ok(found) if found.is_symlink() => {
            let to = fs::read_link(&source).and_then(|to| parent(at).and_then(|()| symlink(to, at)));
            to.because(|| format!("make {at}"))
        }
        Ok(_) => bind(&source, at, Access::Read),
    }
}

fn bind(from: &Path, at: &str, access: Access) -> Result<(), Reason> {
    let what = || format!("mount {at}");
    let is_folder = fs::metadata(from).because(what)?.is_dir();
    if !Path::new(at).exists() {
        let place = if is_folder { folder(at) } else { parent(at).and_then(|()| fs::write(at, "")) };
        place.because(what)?;
    }
    let none = None::<&str>;
    mount(Some(from), at, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).because(what)?;
    let flags = match access {
        Access::Read => TAME | MsFlags::MS_RDONLY,
        Access::Write => TAME,
        Access::Device => MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
    };
    restrict(at, flags).because(|| format!("restrict {at}"))
}

/// Adds flags to a mount and all below it; those it has stay.
fn restrict(at: &str, flags: MsFlags) -> nix::Result<()> {
    let attributes = [
        (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    ];
    let wanted = attributes.into_iter().filter(|(flag, _)| flags.contains(*flag));
    let set = libc::mount_attr {
        attr_set: wanted.fold(0, |set, (_, attribute)| set | attribute),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let path = CString::new(Path::new(at).as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: path and attributes outlive the call, which only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            0x8000, // AT_RECURSIVE
            &raw const set,
            size_of_val(&set),
        )
    };
    match Errno::result(done) {
        Err(Errno::ENOSYS) => restrict_each(at, flags),
        done => done.map(drop),
    }
}

/// The same for a kernel before 5.12: mount by mount, each with the flags that it has, some of which may be locked.
fn restrict_each(at: &str, flags: MsFlags) -> nix::Result<()> {
    let none = None::<&str>;
    let table = fs::read_to_string(format!("{OLD}/proc/self/mountinfo")).map_err(|_| Errno::ENOSYS)?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    for place in places.filter(|place| Path::new(place).starts_with(at)) {
        let has = nexushub_volume::kept(statvfs(place)?.flags());
        mount(none, place, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | has | flags, none)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let hosts = vec!["127.0.0.1 shop".into()];
        Run { release: "/r".into(), data: "/d".into(), tmp_bytes: 1 << 30, hosts, ..Run::default() }
    }

    #[test]
    fn only_the_data_is_writable_of_all_that_is_the_hosts() {
        let written: Vec<_> = plan(&run(), (1000, 1000))
            .into_iter()
            .filter(|step| matches!(step, Step::Bind { access: Access::Write, .. }))
            .collect();
        assert_eq!(written, [Step::Bind { from: "/d".into(), at: "/db", access: Access::Write }]);
    }

    #[test]
    fn shared_memory_is_bounded_even_where_tmp_is_not() {
        for (tmp_bytes, shm) in [(0, SHM_MAX), (1 << 30, SHM_MAX), (4096, 4096)] {
            assert!(plan(&Run { tmp_bytes, ..run() }, (1, 1)).contains(&Step::Memory("/dev/shm", shm)));
        }
    }

    #[test]
    fn proc_is_masked_after_it_is_mounted_and_the_apps_names_are_known() {
        let plan = plan(&run(), (7, 8));
        let at = |wanted: &Step| plan.iter().position(|step| step == wanted);
        assert!(at(&Step::Processes) < at(&Step::Masked("/proc/kcore")));
        assert!(at(&Step::Processes) < at(&Step::ReadOnly("/proc/sys")));
        let hosts = "127.0.0.1 localhost internal.yesterday.localhost\n127.0.0.1 shop\n";
        assert!(at(&Step::File("/etc/hosts", hosts.into())).is_some());
        assert!(at(&Step::File("/etc/group", "root:x:0:\napp:x:8:\n".into())).is_some());
    }

    #[test]
    fn names_are_asked_for_where_the_way_out_begins_or_nowhere() {
        let gateway = Some([198, 18, 0, 1].into());
        for (gateway, resolver, dns) in [(None, "", false), (gateway, "nameserver 198.18.0.1\n", true)] {
            let plan = plan(&Run { gateway, ..run() }, (1, 1));
            assert!(plan.contains(&Step::File("/etc/resolv.conf", resolver.into())));
            let asked =
                |step: &Step| matches!(step, Step::File("/etc/nsswitch.conf", text) if text.contains("dns"));
            assert_eq!(plan.iter().any(asked), dns);
        }
    }
}
