//! Locks held by the kernel for as long as somebody has the file open: no pid files, nothing left over after `kill -9`.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How often a lock held by another is tried again while waiting for it.
const RETRY: Duration = Duration::from_millis(2);

/// An exclusive lock; it ends with the last copy of its descriptor, in whichever process that is.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock if it is free. The file is made if needed (mode 0600) and not inherited by programs started later.
    ///
    /// # Errors
    /// When the file can't be opened or locks aren't supported there.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits for a predecessor to end; none when it holds the lock for longer than that. (`flock` itself can't be given a
    /// deadline without a signal, hence the short steps.)
    ///
    /// # Errors
    /// As [`Lock::try_acquire`].
    pub fn acquire_within(path: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(Some(lock));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(RETRY);
        }
    }

    /// Another descriptor of the same lock, to be inherited by a child that shall hold it too.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_is_free_again_only_when_its_last_copy_is_gone() {
        let path = std::env::temp_dir().join(format!("nexushub-lock-{}", std::process::id()));
        let first = Lock::try_acquire(&path).unwrap().unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        assert!(Lock::acquire_within(&path, Duration::ZERO).unwrap().is_none());
        let copy = first.share().unwrap();
        drop(first);
        assert!(Lock::try_acquire(&path).unwrap().is_none(), "the copy holds it");
        drop(copy);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
        std::fs::remove_file(path).unwrap();
    }
}
