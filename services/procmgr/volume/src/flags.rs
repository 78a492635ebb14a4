//! The flags of mounts: the file systems tell them in other words than they are asked for.

use nix::mount::MsFlags;
use nix::sys::statvfs::FsFlags;

/// The flags that a mount has and a remount that doesn't name them would lose; where a user namespace has inherited the mount, it may not.
#[must_use]
pub fn kept(has: FsFlags) -> MsFlags {
    let pairs = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    pairs.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_may_be_locked_are_kept() {
        let has = FsFlags::ST_NOEXEC | FsFlags::ST_RELATIME;
        assert_eq!(kept(has), MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME);
    }
}
