//! The guest's file tree. libkrun boots into a root of its own that holds this program and the configuration and nothing of
//! the host's; the app gets another one, in memory, that it cannot change:
//!
//! ```text
//! /app  the release, read-only      /tmp, /dev/shm  in memory, bounded      /proc /sys  the guest's own
//! /db   the app's data              /usr            the host's, read-only (where it is shared)
//! ```

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nexushub_agent::config::Config;
use nexushub_agent::{APP_ID, BASE_TAG, DATA_TAG, RELEASE_TAG};
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, sethostname};

const NEW: &str = "/new";
const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Makes the app's root and moves into it.
pub(crate) fn lay(config: &Config) -> io::Result<()> {
    attach("tmpfs", "tmpfs", NEW, QUIET, "mode=755,size=2m,nr_inodes=256")?;
    folders(config)?;
    etc(config)?;
    attach("dev", "devtmpfs", "/new/dev", MsFlags::MS_NOSUID, "")?;
    make(Path::new("/new/dev/shm"))?;
    links("/new/dev", &[("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")])?;
    attach("shm", "tmpfs", "/new/dev/shm", QUIET, &bounded("1777", config.tmp_bytes))?;
    attach("tmp", "tmpfs", "/new/tmp", QUIET, &bounded("1777", config.tmp_bytes))?;
    attach("proc", "proc", "/new/proc", QUIET | MsFlags::MS_NOEXEC, "")?;
    fs::write("/new/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?; // the app listens on port 80 and is not root
    attach("sys", "sysfs", "/new/sys", QUIET | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY, "")?;
    if config.shares {
        attach(RELEASE_TAG, "virtiofs", "/new/app", QUIET | MsFlags::MS_RDONLY, "")?;
        attach(DATA_TAG, "virtiofs", "/new/db", QUIET, "")?;
    }
    if config.base {
        attach(BASE_TAG, "virtiofs", "/new/usr", QUIET | MsFlags::MS_RDONLY, "")?;
    }
    enter()?;
    told(sethostname(&config.hostname), || "set the host name".into())
}

/// The folders before anything is mounted on them; and the old places of what is below `/usr` today.
fn folders(config: &Config) -> io::Result<()> {
    for name in ["app", "db", "dev", "etc", "etc/nexushub", "proc", "run", "sys", "tmp", "usr", "var"] {
        make(&Path::new(NEW).join(name))?;
    }
    links("/new/var", &[("tmp", "../tmp"), ("run", "../run")])?;
    if !config.base {
        return Ok(());
    }
    links(NEW, &["bin", "lib", "lib64", "sbin"].map(|name| (name, format!("usr/{name}"))))
}

fn etc(config: &Config) -> io::Result<()> {
    write("hosts", hosts(config).as_bytes())?;
    write("hostname", format!("{}\n", config.hostname).as_bytes())?;
    write("passwd", format!("root:x:0:0::/:/bin/sh\napp:x:{APP_ID}:{APP_ID}::/db:/bin/sh\n").as_bytes())?;
    write("group", format!("root:x:0:\napp:x:{APP_ID}:\n").as_bytes())?;
    let dns = if config.way_out.is_some() { " dns" } else { "" };
    write("nsswitch.conf", format!("passwd: files\ngroup: files\nhosts: files{dns}\n").as_bytes())?;
    let resolver = config.way_out.map(|way| format!("nameserver {}\n", way.gateway)).unwrap_or_default();
    write("resolv.conf", resolver.as_bytes())?;
    if let Some(authorities) = &config.authorities {
        make(&Path::new(NEW).join("etc/ssl/certs"))?;
        write("ssl/certs/ca-certificates.crt", authorities)?;
        links("/new/etc/ssl", &[("cert.pem", "certs/ca-certificates.crt")])?;
    }
    config.ca.as_ref().map_or(Ok(()), |ca| write("nexushub/ca.crt", ca))
}

/// The platform has the same name in every box, whatever its domain is.
fn hosts(config: &Config) -> String {
    let mut hosts: String = "127.0.0.1 localhost internal.yesterday.localhost\n::1 localhost\n".into();
    config.hosts.iter().for_each(|line| hosts.extend([line.as_str(), "\n"]));
    hosts
}

/// From here on the new root is the only one, and read-only.
fn enter() -> io::Result<()> {
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | QUIET;
    told(mount(None::<&str>, NEW, None::<&str>, again, None::<&str>), || "make / read-only".into())?;
    let none = None::<&str>;
    let moved = chdir(NEW)
        .and_then(|()| mount(Some("."), "/", none, MsFlags::MS_MOVE, none))
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"));
    told(moved, || "move into the new root".into())
}

fn bounded(mode: &str, bytes: u64) -> String {
    match bytes {
        0 => format!("mode={mode}"),
        bytes => format!("mode={mode},size={bytes},nr_inodes={}", (bytes / 4096).clamp(64, 1 << 20)),
    }
}

fn attach(source: &str, kind: &str, target: &str, flags: MsFlags, data: &str) -> io::Result<()> {
    let data = Some(data).filter(|data| !data.is_empty());
    let at = target.strip_prefix(NEW).filter(|at| !at.is_empty()).unwrap_or("/");
    told(mount(Some(source), target, Some(kind), flags, data), || format!("mount {at}"))
}

fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder).and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)))
}

fn links(folder: &str, links: &[(&str, impl AsRef<Path>)]) -> io::Result<()> {
    for (name, to) in links {
        match symlink(to, PathBuf::from(folder).join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write(name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::write(Path::new("/new/etc").join(name), bytes)
}

/// Says what could not be done.
fn told<T>(done: nix::Result<T>, what: impl FnOnce() -> String) -> io::Result<T> {
    done.map_err(|error| io::Error::other(format!("could not {}: {}", what(), error.desc())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_has_its_fixed_name_beside_that_of_its_domain() {
        let config = Config { hosts: vec!["127.0.0.1 internal.example.org".into()], ..Config::default() };
        let hosts = hosts(&config);
        let names: Vec<_> = hosts.lines().filter_map(|line| line.strip_prefix("127.0.0.1 ")).collect();
        assert_eq!(names, ["localhost internal.yesterday.localhost", "internal.example.org"]);
    }

    #[test]
    fn what_is_in_memory_is_bounded_in_bytes_and_files() {
        assert_eq!(bounded("1777", 0), "mode=1777");
        assert_eq!(bounded("1777", 1 << 20), "mode=1777,size=1048576,nr_inodes=256");
    }
}
