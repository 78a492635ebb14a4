//! Calls that are noted: who makes one, and what came of it.

use std::error::Error;

use tonic::{Request, transport::server::UdsConnectInfo};

use super::{Audit, Event, Outcome};
use crate::{chain, credentials::Caller};

/// Who makes a call, and from where: a daemon or an operator, by the socket, as this user.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    who: String,
    from: String,
}

impl Asker {
    /// Whoever is known by other means than a call.
    #[must_use]
    pub fn new(who: String, from: String) -> Self {
        Self { who, from }
    }

    /// Who made this call.
    pub fn of<T>(request: &Request<T>) -> Self {
        let who = request.extensions().get::<Caller>().map(|caller| caller.name.clone()).unwrap_or_default();
        let uid = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        Self { who, from: uid.map_or_else(String::new, |cred| format!("uid {}", cred.uid())) }
    }
}

impl Audit {
    /// Notes what was asked for, and hands on what came of it: `detail` says what else there is to say where it was done, the error
    /// where it was not.
    ///
    /// # Errors
    /// What was handed in.
    pub fn noted<T, E: Error + 'static>(
        &self,
        asker: Asker,
        (what, object): (&'static str, &str),
        asked: Result<T, E>,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, E> {
        let (outcome, detail) = match &asked {
            Ok(done) => (Outcome::Done, detail(done)),
            Err(error) => (Outcome::Failed, chain(error)),
        };
        let (Asker { who, from }, object) = (asker, object.to_owned());
        self.note(Event { who, what, object, from, outcome, detail });
        asked
    }
}
