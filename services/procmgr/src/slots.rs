//! The user ids of the boxes: each instance has a slot of its own, kept for as long as its folder is there, so that what one box
//! leaves on disk is never another's. As root a slot is a range far above those of people and of container tools; for an ordinary
//! user it is one of the ids that `/etc/subuid` lets that user give away (`nexushub-sandbox` knows which).

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use nexushub_chassis::launch::durable;

use crate::{generation, ids::InstanceId};

/// First user id of the first range.
pub(crate) const FIRST: u32 = 0x7000_0000;
/// User ids in a range.
const RANGE: u32 = 1 << 16;
/// Slots there are at most.
pub(crate) const SLOTS: u32 = 4096;
/// Name of the file in an instance's folder that holds the number of its slot.
const FILE: &str = "slot";

/// The number of the range that begins with this user id.
pub(crate) fn number(first_uid: u32) -> u32 {
    first_uid.saturating_sub(FIRST) / RANGE
}

/// Hands out the slots, one at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots(Arc<Mutex<()>>);

impl Slots {
    /// The first user id of an instance, of the range that it has or, from now on, gets. Blocks.
    pub(crate) fn first_uid(&self, instances: &Path, id: &InstanceId) -> io::Result<u32> {
        let slot = self.number(instances, id, SLOTS)?;
        let none = || io::Error::other(format!("all {SLOTS} ranges of user ids are taken"));
        slot.map(|slot| FIRST + slot * RANGE).ok_or_else(none)
    }

    /// The slot of an instance, which it has or, from now on, gets; none if all of so many are taken. Blocks.
    pub(crate) fn number(&self, instances: &Path, id: &InstanceId, count: u32) -> io::Result<Option<u32>> {
        let _alone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = instances.join(id.as_str());
        if let Some(slot) = read(&folder)? {
            return Ok(Some(slot).filter(|slot| *slot < count));
        }
        generation::make(&folder)?;
        let entries = fs::read_dir(instances)?.flatten();
        // One that makes no sense holds no slot, and is an error only to its own instance.
        let taken = entries.filter_map(|entry| read(&entry.path()).ok().flatten()).collect();
        let slot = lowest_free(&taken, count);
        slot.map_or(Ok(()), |slot| durable::write(&folder.join(FILE), slot.to_string().as_bytes(), 0o600))?;
        Ok(slot)
    }
}

/// Whether an instance has a slot already.
pub(crate) fn has(instances: &Path, id: &InstanceId) -> bool {
    instances.join(id.as_str()).join(FILE).exists()
}

fn read(folder: &Path) -> io::Result<Option<u32>> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other?,
    };
    let slot = text.trim().parse().ok().filter(|slot| *slot < SLOTS);
    let malformed =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no slot number", path.display()));
    slot.map(Some).ok_or_else(malformed)
}

fn lowest_free(taken: &BTreeSet<u32>, count: u32) -> Option<u32> {
    (0..count.min(SLOTS)).find(|slot| !taken.contains(slot))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    #[test]
    fn the_lowest_range_that_nobody_has_is_taken_until_there_is_none() {
        assert_eq!(lowest_free(&BTreeSet::new(), SLOTS), Some(0));
        assert_eq!(lowest_free(&[0, 1, 3].into(), SLOTS), Some(2));
        assert_eq!(lowest_free(&(0..SLOTS).collect(), u32::MAX), None);
        assert_eq!((lowest_free(&[0].into(), 1), lowest_free(&[0].into(), 2)), (None, Some(1)));
        let last = FIRST + (SLOTS - 1) * RANGE + (RANGE - 1);
        assert!(i32::try_from(last).is_ok(), "every id is one that old system calls take");
    }

    #[test]
    fn an_instance_keeps_its_range_and_no_other_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::default();
        let uid = |name: &str| slots.first_uid(dir.path(), &id(name));
        assert_eq!(uid("a").unwrap(), FIRST);
        assert_eq!(uid("b").unwrap(), FIRST + RANGE);
        assert_eq!((number(FIRST), number(FIRST + RANGE)), (0, 1));
        assert_eq!(uid("a").unwrap(), FIRST, "read again from disk");
        assert_eq!(Slots::default().first_uid(dir.path(), &id("b")).unwrap(), FIRST + RANGE);
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(uid("c").unwrap(), FIRST, "free again");
        fs::write(dir.path().join("b/slot"), "4096").unwrap();
        assert!(uid("b").unwrap_err().to_string().contains("holds no slot number"));
    }

    #[test]
    fn who_gets_none_of_few_slots_has_none_and_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::default();
        let number = |name: &str, count| slots.number(dir.path(), &id(name), count).unwrap();
        assert_eq!((number("a", 1), number("b", 1), number("a", 1)), (Some(0), None, Some(0)));
        assert_eq!(number("b", 2), Some(1), "there are more now");
        assert_eq!(number("b", 1), None, "and fewer again");
    }

    #[test]
    fn instances_that_start_at_once_get_ranges_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::default();
        let uids: BTreeSet<u32> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|n| {
                    let (slots, dir) = (&slots, dir.path());
                    scope.spawn(move || slots.first_uid(dir, &id(&format!("i{n}"))).unwrap())
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(uids.len(), 8);
    }
}
