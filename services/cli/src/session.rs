//! Somebody who logged in at a platform elsewhere: the access tokens by which requests pass, each good for ten minutes, and the
//! refresh token that the next one is had by, which every use replaces.
//!
//! ```text
//! none yet, nearly too old, or refused ──▶ the lock ──▶ the refresh token as it is kept now ──▶ exchanged ──▶ the next one kept ──▶ go on
//! ```
//! Invariant: a refresh token is exchanged only under the lock, and the one that follows is kept before the lock is let go of; so
//! of commands that run at once none shows a token that another has used. Use of one that is too old would end the session.

pub(crate) mod front;
pub(crate) mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nexushub_chassis::names::Zone;
use tokio::{
    sync::Mutex,
    task::{JoinError, JoinHandle},
};

use self::{
    front::Word,
    store::{Kept, Store},
};
use crate::{
    failure::Failure,
    https::{Bearer, Client, Target},
};

/// How long an access token is used; the platform's last for ten minutes.
const GOOD_FOR: Duration = Duration::from_secs(9 * 60);

/// An access token.
struct Access {
    token: String,
    until: Instant,
}

/// How a session was left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The platform ended it.
    Said,
    /// It had ended before.
    Over,
    /// The platform does not know of it.
    Untold,
}

/// One platform elsewhere, and who somebody is there.
pub(crate) struct Session {
    store: Store,
    /// As it was when the command began; the refresh token is read anew each time.
    kept: Kept,
    /// Whether it was named, and is not just the one that is meant until the next logout.
    pub(crate) named: bool,
    zone: Zone,
    door: Client,
    access: Mutex<Option<Access>>,
}

impl Session {
    /// The one that is kept so.
    pub(crate) fn open(store: Store, kept: Kept, named: bool) -> Result<Arc<Self>, Failure> {
        let zone = kept.zone()?;
        let door = Client::new(front::target(&zone), &kept.roots(), Bearer::Nobody)?;
        Ok(Arc::new(Self { store, kept, named, zone, door, access: Mutex::default() }))
    }

    /// Its address, as it was named.
    pub(crate) fn url(&self) -> &str {
        &self.kept.url
    }

    /// Its base domain and its port.
    pub(crate) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The way to its debug-api, by its front door.
    pub(crate) fn client(self: &Arc<Self>) -> Result<Client, Failure> {
        Client::new(front::target(&self.zone), &self.kept.roots(), Bearer::Person(Arc::clone(self)))
    }

    /// The way to an app there, to whom nobody is anybody: what opens the platform is not shown to it.
    pub(crate) fn app(&self, host: &str) -> Result<Client, Failure> {
        let target = Target::at(format!("{host}.{}", self.zone.base()), self.zone.port());
        Client::new(target, &self.kept.roots(), Bearer::Nobody)
    }

    /// An access token that is good for a while.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<String, Failure> {
        had(self.other_than(None).await)
    }

    /// Another one than this, which was refused.
    pub(crate) async fn instead_of(self: &Arc<Self>, refused: &str) -> Result<String, Failure> {
        had(self.other_than(Some(refused.to_owned())).await)
    }

    /// In a task of its own: who stops waiting must not leave a token that was used and none that is kept.
    fn other_than(self: &Arc<Self>, refused: Option<String>) -> JoinHandle<Result<String, Failure>> {
        let own = Arc::clone(self);
        tokio::spawn(async move { own.have(refused.as_deref()).await })
    }

    async fn have(&self, refused: Option<&str>) -> Result<String, Failure> {
        let mut access = self.access.lock().await;
        let good = |access: &&Access| access.until > Instant::now() && refused != Some(access.token.as_str());
        if let Some(access) = access.as_ref().filter(good) {
            return Ok(access.token.clone());
        }
        let until = Instant::now() + GOOD_FOR;
        let token = self.renew().await?;
        *access = Some(Access { token: token.clone(), until });
        Ok(token)
    }

    async fn renew(&self) -> Result<String, Failure> {
        let _turn = self.store.turn().await?;
        let mut book = self.store.read()?;
        let Some(kept) = book.of(&self.kept.url) else { return Err(self.ended()) };
        match front::exchange(&self.door, &kept.refresh_token).await? {
            Word::Granted { access, refresh } => {
                kept.refresh_token = refresh;
                self.store.write(&book)?;
                Ok(access)
            }
            Word::Denied => Err(no_developer(&self.kept.user, &self.kept.url)),
            Word::Ended => Err(self.ended()),
        }
    }

    fn ended(&self) -> Failure {
        let url = &self.kept.url;
        Failure::new(format!("the session at {url} has ended"), format!("nexushub login {url}"))
    }

    /// Logs out there, and forgets it here. Nothing is forgotten where nobody answers, unless that is asked for.
    pub(crate) async fn log_out(&self, forget: bool) -> Result<Farewell, Failure> {
        let _turn = self.store.turn().await?;
        let mut book = self.store.read()?;
        let Some(kept) = book.of(&self.kept.url) else { return Ok(Farewell::Over) };
        let farewell = match front::log_out(&self.door, &kept.refresh_token).await {
            Ok(true) => Farewell::Said,
            Ok(false) => Farewell::Over,
            Err(_) if forget => Farewell::Untold,
            Err(failure) => {
                let hint =
                    "nothing is forgotten: try again, or do without the platform: nexushub logout --forget";
                return Err(Failure { hint: hint.to_owned(), ..failure });
            }
        };
        book.forget(&self.kept.url);
        self.store.write(&book)?;
        Ok(farewell)
    }
}

fn had(done: Result<Result<String, Failure>, JoinError>) -> Result<String, Failure> {
    done.unwrap_or_else(|_| Err(Failure::new("the session could not be renewed", "try again")))
}

/// Why somebody whom the platform knows can't work with it from elsewhere.
pub(crate) fn no_developer(user: &str, url: &str) -> Failure {
    Failure::new(
        format!(
            "{} may not use {url} by this command: that is for its administrators",
            nexushub_chassis::names::shown(user)
        ),
        "have an administrator allow them the admin app, or log in as somebody else: nexushub login URL --user NAME",
    )
}

#[cfg(test)]
pub(crate) mod tests;
