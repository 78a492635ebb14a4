//! The disk's room for packages that are being unpacked. What a package will take is set aside before any of it is written, and is
//! given back however its unpacking ends: two that fit each, and not together, are not both begun only to fill the disk and fail.
//!
//! What is set aside counts for uploads, too, as what they are promised counts here (`disk.rs`).

use std::sync::{Arc, MutexGuard, PoisonError};

use crate::{
    applications::Hub,
    disk::{self, Held},
    error::StorageError,
    transfers,
    unpack::{Left, Room, UnpackError},
};

/// Of what doesn't say how much it will be so much is set aside at a time.
const STEP: u64 = 8 << 20;

/// What is set aside for one package, until this is dropped. It blocks.
pub(crate) struct Aside {
    hub: Arc<Hub>,
    own: Held,
}

impl Aside {
    /// Nothing yet.
    pub(crate) fn new(hub: &Arc<Hub>) -> Self {
        Self { hub: Arc::clone(hub), own: Held::default() }
    }

    /// Sets aside so many bytes in all; else what there is.
    fn grow(&mut self, bytes: u64) -> Result<(), Short> {
        let more = bytes.saturating_sub(self.own.promised);
        let _alone = self.hub.opening.blocking_lock();
        let folder = self.hub.folders.uploads();
        let free = (self.hub.disk)(&folder).map_err(StorageError::of("measure", &folder))?;
        let room = disk::room(free, transfers::held(&self.hub), self.hub.config.max_upload_disk_percent);
        let mut all = all(&self.hub);
        if more > room {
            let bytes = room.saturating_add(self.own.promised);
            return Err(Short::Of(Left { bytes, others: all.promised.saturating_sub(self.own.promised) }));
        }
        all.promised = all.promised.saturating_add(more);
        self.own.promised = self.own.promised.saturating_add(more);
        Ok(())
    }
}

/// Why there is no more.
enum Short {
    Of(Left),
    Unknown(StorageError),
}

impl From<StorageError> for Short {
    fn from(error: StorageError) -> Self {
        Self::Unknown(error)
    }
}

impl Short {
    fn told(self, as_: impl FnOnce(Left) -> UnpackError) -> UnpackError {
        match self {
            Self::Of(left) => as_(left),
            Self::Unknown(error) => UnpackError::Disk(error),
        }
    }
}

impl Room for Aside {
    fn set_aside(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.grow(bytes).map_err(|short| short.told(|room| UnpackError::Room { needs: bytes, room }))
    }

    fn take(&mut self, more: u64) -> Result<(), UnpackError> {
        let written = self.own.written.saturating_add(more);
        if written > self.own.promised {
            let grown = self.grow(written.saturating_add(STEP)).or_else(|_| self.grow(written));
            grown.map_err(|short| short.told(UnpackError::Full))?;
        }
        self.own.written = written;
        let mut all = all(&self.hub);
        all.written = all.written.saturating_add(more);
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let mut all = all(&self.hub);
        all.written = all.written.saturating_sub(self.own.written);
        all.promised = all.promised.saturating_sub(self.own.promised);
    }
}

/// What all packages have that are being unpacked.
pub(crate) fn unpacking(hub: &Hub) -> Held {
    *all(hub)
}

fn all(hub: &Hub) -> MutexGuard<'_, Held> {
    hub.unpacking.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use super::*;
    use crate::{config::Config, folders::blocking, testing::World};

    /// Of 1000 bytes that are free half may be taken.
    fn world() -> World {
        World::on_disk(Config { max_upload_disk_percent: 50, ..Config::default() }, 1000)
    }

    #[tokio::test]
    async fn what_one_has_set_aside_another_cannot_have_until_it_is_given_back() {
        let world = world();
        let hub = Arc::clone(&world.hub);
        blocking(move || {
            let (mut first, mut second) = (Aside::new(&hub), Aside::new(&hub));
            first.set_aside(300).unwrap();
            first.set_aside(300).unwrap();
            let said = second.set_aside(201).unwrap_err();
            assert!(said.is_of_room());
            assert_eq!(
                said.to_string(),
                "not enough disk space: it unpacks to 201 bytes, and 200 may be taken beside the 300 of other packages \
                 that are being unpacked; try again once they are, or free some"
            );
            second.set_aside(200).unwrap();
            drop(first);
            second.set_aside(500).unwrap();
            let alone = second.set_aside(501).unwrap_err().to_string();
            assert!(alone.ends_with("it unpacks to 501 bytes, and 500 may be taken; free some"), "{alone}");
            drop(second);
            assert_eq!(unpacking(&hub), Held::default());
        })
        .await;
    }

    #[tokio::test]
    async fn what_says_nothing_has_what_it_takes_to_the_last_byte_and_no_more() {
        let world = world();
        let hub = Arc::clone(&world.hub);
        blocking(move || {
            let (mut silent, mut other) = (Aside::new(&hub), Aside::new(&hub));
            other.set_aside(100).unwrap();
            // What it has written is no longer free on a disk, of which the test's knows nothing: half of it is added each time.
            silent.take(300).unwrap();
            assert_eq!(unpacking(&hub), Held { written: 300, promised: 400 });
            let full = silent.take(300).unwrap_err();
            assert!(matches!(full, UnpackError::Full(Left { bytes: 550, others: 100 })), "{full}");
            silent.take(250).unwrap();
            drop((silent, other));
            assert_eq!(unpacking(&hub), Held::default());
        })
        .await;
    }

    #[tokio::test]
    async fn of_many_that_ask_at_once_as_many_are_let_in_as_fit_together() {
        let world = world();
        let hub = Arc::clone(&world.hub);
        let granted = blocking(move || {
            let asking: Vec<_> = (0..16)
                .map(|_| {
                    let mut aside = Aside::new(&hub);
                    thread::spawn(move || aside.set_aside(120).is_ok().then_some(aside))
                })
                .collect();
            let kept: Vec<_> = asking.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
            kept.len()
        })
        .await;
        assert_eq!(granted, 4);
    }
}
