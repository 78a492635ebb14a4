//! What a microVM says of its inside, where no cgroup of this machine looks: its keeper leaves the agent's newest word in the
//! generation's folder. It is a guest's word, so numbers and nothing else are taken from it.

use std::{fs::File, io::Read, path::Path};

/// Its name, as the keeper knows it.
pub(crate) const FILE: &str = "guest";
/// It is never longer.
const MOST: u64 = 128;

/// What is in use inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guest {
    /// Memory, that of its kernel included.
    pub memory_bytes: u64,
    /// Processes, kernel threads included.
    pub processes: u64,
    /// Processes that its kernel killed for want of memory.
    pub oom_kills: u64,
}

/// The newest word of a generation's guest; none where there is no guest, or nothing to be understood. Blocks.
pub(crate) fn of(dir: &Path) -> Option<Guest> {
    let mut text = String::new();
    File::open(dir.join(FILE)).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let [memory_bytes, processes, oom_kills] = *numbers.first_chunk()?;
    Some(Guest { memory_bytes, processes, oom_kills })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_numbers_are_believed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path()), None);
        let word = Guest { memory_bytes: 1 << 20, processes: 3, oom_kills: 2 };
        let long = format!("1 2 3 {}", "4".repeat(200));
        for (text, expected) in [
            ("1048576 3 2    \n", Some(word)),
            ("1048576 3 2 9\n", Some(word)), // a newer keeper may say more
            ("1048576 3", None),
            ("1048576 -3 2", None),
            ("", None),
            (&long, None),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(of(dir.path()), expected, "{text}");
        }
    }
}
