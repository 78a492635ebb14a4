//! Tells followers of logs when something was written to a folder. One descriptor of the kernel's serves all of them, for a user has few
//! (128 by default); a folder is watched while somebody follows it, and nothing wakes while nobody does.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use tokio::{io::unix::AsyncFd, sync::watch};

/// How often a follower looks where the kernel has no more watches to give.
const FALLBACK: Duration = Duration::from_millis(500);
/// What ends a watch: the folder is gone, or is another's.
const OVER: AddWatchFlags =
    AddWatchFlags::IN_IGNORED.union(AddWatchFlags::IN_DELETE_SELF).union(AddWatchFlags::IN_MOVE_SELF);
const WATCHED: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// All that is watched. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct News(Option<Arc<Desk>>);

#[derive(Debug)]
struct Desk {
    inotify: Inotify,
    followed: Mutex<Followed>,
}

/// Whom each watch wakes; its followers see their end when it is taken out. None when the kernel is heard no more.
type Followed = Option<HashMap<WatchDescriptor, watch::Sender<()>>>;

/// One follower's ear for one folder.
pub(crate) enum Ear {
    Kernel(Place),
    /// The kernel has no watch left.
    Clock,
}

/// A follower's share in a watch, which ends with the last.
pub(crate) struct Place {
    desk: Arc<Desk>,
    watch: WatchDescriptor,
    /// None once it is given back.
    told: Option<watch::Receiver<()>>,
}

/// The descriptor, as the event loop wants it.
struct Bell(Arc<Desk>);

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.inotify.as_fd().as_raw_fd()
    }
}

impl News {
    /// Listens from now on, for as long as the runtime lives.
    pub(crate) fn start() -> Self {
        let opened = Desk::open().and_then(|desk| {
            // Deprecated for types whose descriptor may change or close while registered: this one's can't, `Desk` owns it.
            #[allow(deprecated)]
            let bell = AsyncFd::new(Bell(Arc::clone(&desk)))?;
            tokio::spawn(ring(bell));
            Ok(desk)
        });
        let told = |error: &io::Error| {
            tracing::warn!(error = %error, "no news of logs from the kernel; followers look from time to time");
        };
        Self(opened.inspect_err(told).ok())
    }

    /// From now on whatever is written in a folder wakes who waits with this.
    pub(crate) fn of(&self, folder: &Path) -> Ear {
        let desk = self.0.as_ref();
        let place =
            desk.and_then(|desk| {
                desk.follow(folder).inspect_err(|error| {
            tracing::debug!(error = %error, "no watch for a log; a follower looks from time to time");
        }).ok()
            });
        place.map_or(Ear::Clock, Ear::Kernel)
    }
}

impl Ear {
    /// Waits. Whether the folder may still hold something new.
    pub(crate) async fn wait(&mut self) -> bool {
        match self {
            Self::Kernel(place) => match &mut place.told {
                Some(told) => told.changed().await.is_ok(),
                None => false,
            },
            Self::Clock => {
                tokio::time::sleep(FALLBACK).await;
                true
            }
        }
    }
}

impl Desk {
    fn open() -> io::Result<Arc<Self>> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Arc::new(Self { inotify, followed: Mutex::new(Some(HashMap::new())) }))
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A system call that waits for nothing: too little to hand to another thread. The kernel gives a folder that is watched
    /// already the same watch again.
    fn follow(self: &Arc<Self>, folder: &Path) -> io::Result<Place> {
        let mut followed = self.lock();
        let followed = followed.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let watch = self.inotify.add_watch(folder, WATCHED)?;
        let told = followed.entry(watch).or_insert_with(|| watch::Sender::new(())).subscribe();
        Ok(Place { desk: Arc::clone(self), watch, told: Some(told) })
    }

    fn tell(&self, event: &InotifyEvent) {
        let mut followed = self.lock();
        let Some(followed) = followed.as_mut() else { return };
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            followed.values().for_each(|told| told.send_replace(()));
        } else if event.mask.intersects(OVER) {
            // A folder that was moved away is still watched; of one that is gone there is nothing to let go of.
            if followed.remove(&event.wd).is_some() {
                let _ = self.inotify.rm_watch(event.wd);
            }
        } else if let Some(told) = followed.get(&event.wd) {
            told.send_replace(());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut followed = self.desk.lock();
        let Some(followed) = followed.as_mut() else { return };
        self.told = None; // before it is counted: another may leave at the same moment
        if followed.get(&self.watch).is_some_and(|told| told.receiver_count() == 0) {
            followed.remove(&self.watch);
            let _ = self.desk.inotify.rm_watch(self.watch);
        }
    }
}

/// Passes on what the kernel tells; where it tells nothing more, all who follow see their end and come again.
async fn ring(mut bell: AsyncFd<Bell>) {
    loop {
        let Ok(mut ready) = bell.readable_mut().await else { break };
        let desk = &ready.get_inner().0;
        match desk.inotify.read_events() {
            Ok(events) => events.iter().for_each(|event| desk.tell(event)),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(error = %error, "the kernel tells nothing more of logs");
                break;
            }
        }
    }
    bell.get_ref().0.lock().take();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn place(ear: &Ear) -> &Place {
        match ear {
            Ear::Kernel(place) => place,
            Ear::Clock => unreachable!("this machine has a watch to give"),
        }
    }

    #[tokio::test]
    async fn all_who_follow_a_folder_are_woken_and_nobody_else() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let news = News::start();
        let mut ears = [news.of(one.path()), news.of(one.path())];
        let elsewhere = news.of(other.path());
        fs::write(one.path().join("segment"), "x").unwrap();
        for ear in &mut ears {
            assert!(ear.wait().await);
        }
        assert!(!place(&elsewhere).told.as_ref().unwrap().has_changed().unwrap());
    }

    #[tokio::test]
    async fn hundreds_follow_though_a_user_has_but_128_descriptors_of_this_kind() {
        let folder = tempfile::tempdir().unwrap();
        let news = News::start();
        let ears: Vec<_> = (0..300).map(|_| news.of(folder.path())).collect();
        assert!(ears.iter().all(|ear| matches!(ear, Ear::Kernel(_))));
    }

    #[tokio::test]
    async fn a_folder_is_watched_for_as_long_as_somebody_follows_it() {
        let folder = tempfile::tempdir().unwrap();
        let news = News::start();
        let watched = || news.0.as_ref().unwrap().lock().as_ref().unwrap().len();
        let (first, mut second) = (news.of(folder.path()), news.of(folder.path()));
        assert_eq!((watched(), place(&first).watch), (1, place(&second).watch));
        drop(first);
        assert_eq!(watched(), 1);
        fs::write(folder.path().join("segment"), "x").unwrap();
        assert!(second.wait().await);
        drop(second);
        assert_eq!(watched(), 0);
        let mut third = news.of(folder.path());
        fs::write(folder.path().join("segment"), "xx").unwrap();
        assert!(third.wait().await, "it is watched anew");
    }

    #[tokio::test]
    async fn who_follows_a_folder_that_is_removed_sees_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut ear = News::start().of(folder.path());
        drop(folder);
        while ear.wait().await {}
    }
}
