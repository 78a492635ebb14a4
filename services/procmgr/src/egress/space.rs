//! Work in other networks than the own, and the tools that do it: `ip` and `nft`. A network is entered by a thread that ends with
//! the work; what it starts is in there too, and no other thread notices.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

/// Where tools of the machine's administrator are; an empty `PATH` is no reason to miss them.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The packages that bring them.
const PACKAGES: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];

/// Does work in another network.
pub(super) fn within<T: Send>(network: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    aside(|| setns(network, CloneFlags::CLONE_NEWNET), work)
}

/// Does work in a network of nobody's, which ends with it and with what is held of it.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    aside(|| unshare(CloneFlags::CLONE_NEWNET), work)
}

fn aside<T: Send>(
    enter: impl FnOnce() -> nix::Result<()> + Send,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let whole = || {
        enter().map_err(|errno| io::Error::other(format!("could not enter a network: {}", errno.desc())))?;
        work()
    };
    let done = thread::scope(|scope| scope.spawn(whole).join());
    done.unwrap_or_else(|_| Err(io::Error::other("the work in another network broke off")))
}

/// Where the kernel says that links of this network have come, changed or gone.
pub(super) fn link_news() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let news = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let of_links = u32::try_from(libc::RTMGRP_LINK).unwrap_or_default();
    bind(news.as_raw_fd(), &NetlinkAddr::new(0, of_links))?;
    Ok(news)
}

/// Takes what was said there. More than there is room for is as good as less: whoever heard of it looks.
pub(super) fn forget(news: &OwnedFd) {
    while recv(news.as_raw_fd(), &mut [0; 8192], MsgFlags::empty()).is_ok() {}
}

/// Runs a tool that reads this text.
pub(super) fn run(tool: &str, args: &[&str], text: &[u8]) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    let path = find(tool)?;
    let mut command = command(&path, args);
    let child = command.stdin(reader).spawn()?;
    drop(command); // and with it our copy of the reading end: the write says when a tool ends early
    let written = writer.write_all(text);
    drop(writer);
    judge(tool, &child.wait_with_output()?).and(written)
}

/// Runs a tool whose standard input is this file.
pub(super) fn run_with(tool: &str, args: &[&str], file: &File) -> io::Result<()> {
    let output = command(&find(tool)?, args).stdin(file.try_clone()?).output()?;
    judge(tool, &output)
}

fn command(path: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(args).env_clear().current_dir("/").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn find(tool: &str) -> io::Result<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists());
    found.ok_or_else(|| {
        let package = PACKAGES.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, package)| package);
        io::Error::new(io::ErrorKind::NotFound, format!("there is no {tool}, install {package}"))
    })
}

fn judge(tool: &str, output: &Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("without a word");
    Err(io::Error::other(format!("{tool} failed: {first}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_tool_that_is_missing_is_named_with_its_package_and_one_that_fails_with_its_words() {
        assert!(find("nexushub-nothing").unwrap_err().to_string().contains("no nexushub-nothing"));
        let text = vec![b'x'; 1 << 20];
        let failed = run("sh", &["-c", "echo; echo why >&2; exit 3"], &text).unwrap_err().to_string();
        assert_eq!(failed, "sh failed: why");
        run("sh", &["-c", "test $(cat) = told"], b"told").unwrap();
        run_with("sh", &["-c", "cat >/dev/null"], &File::open("/dev/null").unwrap()).unwrap();
    }

    #[test]
    fn work_apart_is_in_another_network_and_its_thread_alone() {
        let own = || std::fs::read_link("/proc/thread-self/ns/net");
        match apart(own) {
            Ok(other) => assert_ne!(other, own().unwrap()),
            Err(error) => println!("not tried, since it takes root: {error}"),
        }
    }
}
