//! Who was logged out before their access tokens' time was over. What is asked of every token is answered from memory and
//! without a lock; what is added is on disk before it is confirmed, and every generation of the proxy follows the file.
//!
//! Entries live for as long as a token that they concern may be shown: the twelve hours of a developer's session. Too many of
//! them become one: whoever got a token before this moment fetches another. So it is, too, where what was kept can't be read.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use memchr::memmem;
use nexushub_chassis::launch::{clock, durable, lock::Lock};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};

use crate::tokens::{Access, LIFETIME_MS};

/// How long after it was made a token may be good at the longest, in milliseconds: a developer's session.
pub(crate) const LONGEST_MS: i64 = 12 * 3600 * 1000;
/// Where they are kept; no other file beside it has such a name.
const FILE: &str = "revoked.json";
/// Entries of each kind.
const MOST: usize = 50_000;
/// A file of them is smaller than this.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Longest wait for another generation that adds some.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sessions and users themselves, and when it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Whoever got a token before this has to get another.
    floor_ms: i64,
    sessions: HashMap<String, i64>,
    users: HashMap<i64, i64>,
}

impl List {
    fn covers(&self, access: &Access) -> bool {
        let born = access.born_ms();
        let after = |at: &i64| born <= *at;
        born < self.floor_ms
            || self.sessions.contains_key(&access.user.session)
            || self.users.get(&access.user.id).is_some_and(after)
    }

    /// Adds what another list has.
    fn join(&mut self, other: &Self) {
        self.floor_ms = self.floor_ms.max(other.floor_ms);
        for (session, at) in &other.sessions {
            self.sessions.entry(session.clone()).or_insert(*at);
        }
        for (user, at) in &other.users {
            let known = self.users.entry(*user).or_insert(*at);
            *known = (*known).max(*at);
        }
    }

    fn add(&mut self, sessions: Vec<String>, users: Vec<i64>, now_ms: i64) {
        let still = |at: &i64| *at + LONGEST_MS + LIFETIME_MS > now_ms;
        self.sessions.retain(|_, at| still(at));
        self.users.retain(|_, at| still(at));
        self.sessions.extend(sessions.into_iter().map(|session| (session, now_ms)));
        self.users.extend(users.into_iter().map(|user| (user, now_ms)));
        if self.sessions.len().max(self.users.len()) > MOST {
            *self = Self { floor_ms: now_ms + 1, ..Self::default() };
        }
    }
}

/// Who was logged out.
#[derive(Debug)]
pub(crate) struct Revoked {
    path: PathBuf,
    list: ArcSwap<List>,
}

impl Revoked {
    /// Those that are kept below this state folder.
    pub(crate) fn load(state: &Path, now_ms: i64) -> Arc<Self> {
        let path = state.join("proxy").join(FILE);
        let list = ArcSwap::from_pointee(kept(&path, now_ms));
        Arc::new(Self { path, list })
    }

    /// Whether a token is void before its time.
    pub(crate) fn covers(&self, access: &Access) -> bool {
        self.list.load().covers(access)
    }

    /// Adds sessions and users, whose tokens made up to now are void from now on. Reads and writes files.
    ///
    /// # Errors
    /// When it could not be kept. It counts for this process nevertheless.
    pub(crate) fn add(&self, sessions: Vec<String>, users: Vec<i64>, now_ms: i64) -> io::Result<()> {
        self.list.rcu(|list| {
            let mut next = List::clone(list);
            next.add(sessions.clone(), users.clone(), now_ms);
            next
        });
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let turn = Lock::acquire_within(&self.path.with_extension("lock"), PATIENCE)?;
        let _turn = turn.ok_or_else(|| io::Error::other("another proxy writes it"))?;
        let mut list = kept(&self.path, now_ms);
        list.join(&self.list.load());
        list.add(sessions, users, now_ms);
        durable::write(&self.path, &serde_json::to_vec(&list)?, 0o600)?;
        self.list.store(Arc::new(list));
        Ok(())
    }

    /// Follows the file for as long as the proxy lives. Nothing is asked for in between: the kernel tells.
    pub(crate) async fn follow(self: Arc<Self>) {
        match self.watch() {
            Ok(mut news) => {
                self.reread(); // what came before the watch
                let mut told = [0; 4096]; // many names
                while let Ok(bytes @ 1..) = news.read(&mut told).await {
                    if memmem::find(&told[..bytes], FILE.as_bytes()).is_some() {
                        self.reread();
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "log-outs by another generation are not heard of"),
        }
        std::future::pending::<()>().await; // what is known stays so
    }

    fn reread(&self) {
        let now_ms = clock::unix_ms(SystemTime::now());
        let read = kept(&self.path, now_ms);
        self.list.rcu(|known| {
            let mut next = read.clone();
            next.join(known); // what could not be kept counts on
            next
        });
    }

    fn watch(&self) -> io::Result<Receiver> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let news = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        news.add_watch(folder, AddWatchFlags::IN_MOVED_TO)?;
        Receiver::from_file_unchecked(fs::File::from(OwnedFd::from(news)))
    }
}

fn kept(path: &Path, now_ms: i64) -> List {
    read(path).unwrap_or_else(|error| {
        let error = nexushub_chassis::chain(&error);
        tracing::warn!(object = %path.display(), error, "who was logged out is not known; all tokens made up to now are void");
        List { floor_ms: now_ms + 1, ..List::default() }
    })
}

fn read(path: &Path) -> io::Result<List> {
    let content = match fs::metadata(path).and_then(|found| Ok((found.len(), fs::read(path)?))) {
        Ok((length, _)) if length > MOST_BYTES => return Err(io::Error::other("too large")),
        Ok((_, content)) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(List::default()),
        Err(error) => return Err(error),
    };
    Ok(serde_json::from_slice(&content)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::User;

    const NOW: i64 = 1_800_000_000_000;

    fn access(id: i64, session: &str, born_ms: i64) -> Access {
        let user = User { id, name: String::new(), session: session.into() };
        Access { instance: "shop".into(), user: Arc::new(user), expires_ms: born_ms + LIFETIME_MS }
    }

    fn revoked() -> (tempfile::TempDir, Arc<Revoked>) {
        let state = tempfile::tempdir().unwrap();
        let revoked = Revoked::load(state.path(), NOW);
        (state, revoked)
    }

    #[test]
    fn a_session_ends_for_good_and_a_user_until_the_next_log_in() {
        let (state, revoked) = revoked();
        revoked.add(vec!["one".into()], vec![7], NOW).unwrap();
        for revoked in [revoked, Revoked::load(state.path(), NOW)] {
            assert!(revoked.covers(&access(1, "one", NOW + 5)));
            assert!(revoked.covers(&access(7, "two", NOW)));
            assert!(!revoked.covers(&access(7, "two", NOW + 1)));
            assert!(!revoked.covers(&access(1, "three", NOW - 1)));
        }
    }

    #[test]
    fn entries_are_forgotten_when_no_token_can_be_shown_that_they_concern() {
        let mut list = List::default();
        list.add(vec!["one".into()], vec![7], NOW);
        list.add(vec![], vec![], NOW + LONGEST_MS);
        assert_eq!((list.sessions.len(), list.users.len()), (1, 1));
        list.add(vec![], vec![], NOW + LONGEST_MS + LIFETIME_MS);
        assert_eq!(list, List::default());
    }

    #[test]
    fn too_many_entries_void_every_token_made_before() {
        let mut list = List::default();
        list.add((0..=MOST).map(|number| number.to_string()).collect(), vec![], NOW);
        assert!(list.sessions.is_empty());
        assert!(list.covers(&access(1, "any", NOW)) && !list.covers(&access(1, "any", NOW + 1)));
    }

    #[test]
    fn what_was_kept_and_makes_no_sense_voids_every_token_made_before() {
        let (state, revoked) = revoked();
        revoked.add(vec!["one".into()], vec![], NOW).unwrap();
        fs::write(state.path().join("proxy/revoked.json"), "{").unwrap();
        let next = Revoked::load(state.path(), NOW);
        assert!(next.covers(&access(1, "one", NOW)) && next.covers(&access(2, "two", NOW)));
        assert!(!next.covers(&access(2, "two", NOW + 1)));
        next.add(vec![], vec![7], NOW + 5).unwrap();
        assert!(Revoked::load(state.path(), NOW).covers(&access(7, "", NOW + 5)), "it is whole again");
    }

    #[test]
    fn what_could_not_be_kept_counts_on_whatever_comes_after() {
        let (state, revoked) = revoked();
        let folder = state.path().join("proxy");
        fs::write(&folder, "in the way of the folder").unwrap();
        revoked.add(vec!["one".into()], vec![7], NOW).unwrap_err();
        assert!(revoked.covers(&access(1, "one", NOW)));
        fs::remove_file(&folder).unwrap();
        revoked.reread();
        revoked.add(vec!["two".into()], vec![], NOW + 1).unwrap();
        for revoked in [revoked, Revoked::load(state.path(), NOW)] {
            assert!(revoked.covers(&access(1, "one", NOW)) && revoked.covers(&access(1, "two", NOW)));
            assert!(
                revoked.covers(&access(7, "three", NOW)) && !revoked.covers(&access(7, "three", NOW + 1))
            );
        }
    }

    #[tokio::test]
    async fn generations_hear_of_each_others_log_outs() {
        let (state, old) = revoked();
        let new = Revoked::load(state.path(), NOW);
        tokio::spawn(Arc::clone(&old).follow());
        new.add(vec!["one".into()], vec![], NOW).unwrap();
        let heard = async {
            while !old.covers(&access(1, "one", NOW)) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap();
    }
}
