//! How much of the disk uploads may take, and what is unpacked of them. Of the space that would be free without them they get a share;
//! the rest stays free, so that an upload never takes what the running apps need.

use std::{io, path::Path, sync::Arc};

use nix::sys::statvfs::statvfs;

/// Says how many bytes are free for us on the disk of a folder.
pub(crate) type Gauge = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// What the uploads under way have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes on the disk.
    pub(crate) written: u64,
    /// Bytes that they may have in the end; at least those written.
    pub(crate) promised: u64,
}

impl Held {
    /// With another one's.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            written: self.written.saturating_add(other.written),
            promised: self.promised.saturating_add(other.promised),
        }
    }
}

/// Whether so many bytes more still fit into the uploads' share.
pub(crate) fn admits(free: u64, held: Held, more: u64, percent: u8) -> bool {
    let theirs = u128::from(held.promised) + u128::from(more);
    let all = u128::from(free) + u128::from(held.written);
    theirs * 100 <= all * u128::from(percent)
}

/// How many bytes more the share has room for.
pub(crate) fn room(free: u64, held: Held, percent: u8) -> u64 {
    let all = u128::from(free) + u128::from(held.written);
    let theirs = (all * u128::from(percent) / 100).saturating_sub(u128::from(held.promised));
    u64::try_from(theirs).unwrap_or(u64::MAX)
}

/// The system's own gauge.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let stat = statvfs(folder)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn uploads_get_their_share_of_what_would_be_free_without_them() {
        let held = |written, promised| Held { written, promised };
        assert!(admits(100, held(0, 0), 80, 80));
        assert!(!admits(100, held(0, 0), 81, 80));
        assert!(!admits(100, held(0, 80), 1, 80), "promised is as good as taken");
        assert!(admits(20, held(80, 80), 0, 80), "what they have written counts as theirs");
        assert!(!admits(20, held(80, 80), 1, 80));
        assert!(admits(100, held(0, 0), 100, 100));
        assert!(!admits(u64::MAX, held(u64::MAX, u64::MAX), u64::MAX, 1), "no overflow");
        for (free, held) in [(100, held(0, 0)), (100, held(0, 30)), (20, held(80, 80)), (7, held(5, 9))] {
            let room = room(free, held, 80);
            assert!(!admits(free, held, room + 1, 80) && (room == 0 || admits(free, held, room, 80)));
        }
        assert_eq!(room(u64::MAX, held(u64::MAX, 0), 100), u64::MAX, "no overflow");
    }

    #[test]
    fn a_disk_says_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).unwrap() > 0);
        assert!(free(&folder.path().join("none")).is_err());
    }
}
