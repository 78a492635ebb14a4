//! The gate: what is shown to the proxy, judged. Access tokens of users, those of developers for longer (`stays.rs`), and the tokens
//! of the platform's own daemons.

use std::{path::Path, sync::Arc};

use http::HeaderMap;
use nexushub_chassis::credentials::{Credentials, bearer};

use crate::{
    cookies,
    decide::Shown,
    door::Caller,
    revoked::{LONGEST_MS, Revoked},
    stays::Stays,
    tokens::{Access, Bad, Tokens},
    wellknown::ADMIN,
};

/// The right that a daemon's token must have.
const HTTP: &str = "http";

/// Judges what is shown.
pub(crate) struct Gate {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) revoked: Arc<Revoked>,
    pub(crate) stays: Arc<Stays>,
    daemons: Credentials,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Gate {
    /// With what is kept below this state folder.
    pub(crate) fn load(state: &Path, daemons: Credentials, now_ms: i64) -> Self {
        Self {
            tokens: Arc::new(Tokens::load(state, now_ms / 1000)),
            revoked: Revoked::load(state, now_ms),
            stays: Arc::new(Stays::load(state)),
            daemons,
        }
    }

    /// The access tokens of a request that are good now, if it shows any; and why its bearer is not, if that is meant to be one.
    /// Costs two looks where there are none.
    pub(crate) fn shown(&self, headers: &HeaderMap, clock: fn() -> i64) -> (Option<Shown>, Option<Bad>) {
        let token = bearer(headers).filter(|bearer| Tokens::is_one(bearer));
        let cookie = cookies::get(headers, cookies::HOST_YAT);
        if token.is_none() && cookie.is_none() {
            return (None, None);
        }
        let now_ms = clock();
        let bearer = token.map(|token| self.check(token, now_ms)).transpose();
        let bad = bearer.as_ref().err().copied();
        let cookie = cookie.and_then(|token| self.check(token, now_ms).ok());
        let shown = Shown { bearer: bearer.ok().flatten().map(Arc::new), cookie: cookie.map(Arc::new) };
        (Some(shown), bad)
    }

    fn check(&self, token: &str, now_ms: i64) -> Result<Access, Bad> {
        let access = self.tokens.check(token, now_ms)?;
        if self.revoked.covers(&access) { Err(Bad::Revoked) } else { Ok(access) }
    }

    /// An administrator who develops.
    pub(crate) fn developer(&self, token: &str, now_ms: i64) -> Result<Access, Bad> {
        let access = self.tokens.read(token, now_ms)?;
        if self.revoked.covers(&access) {
            return Err(Bad::Revoked);
        }
        if access.instance != ADMIN {
            return Err(Bad::Elsewhere);
        }
        let too_old = now_ms >= access.born_ms().saturating_add(LONGEST_MS);
        if too_old || !self.stays.is_good(token, access.expires_ms, now_ms) {
            return Err(Bad::Expired);
        }
        Ok(access)
    }

    /// The daemon of the platform whose token came with a request from this user's process.
    pub(crate) fn daemon(&self, headers: &HeaderMap, uid: u32) -> Option<Caller> {
        let caller = self.daemons.verify(bearer(headers)?, Some(uid))?;
        if caller.may(HTTP) { Caller::of(&format!("@{}", caller.name)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{
        HeaderValue,
        header::{AUTHORIZATION, COOKIE},
    };

    use super::*;
    use crate::{identity::User, tokens::LIFETIME_MS};

    const NOW: i64 = 1_800_000_000_000;

    fn gate() -> (tempfile::TempDir, Gate) {
        let state = tempfile::tempdir().unwrap();
        let gate = Gate::load(state.path(), Credentials::default(), NOW);
        (state, gate)
    }

    fn token(gate: &Gate, instance: &str) -> String {
        let user = User { id: 7, name: "Ada".into(), session: "s".into() };
        gate.tokens.make(instance, &user, NOW).unwrap()
    }

    #[test]
    fn good_tokens_are_known_by_where_they_were_shown() {
        let (_state, gate) = gate();
        let token = token(&gate, "shop");
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        let cookie = HeaderValue::try_from(format!("a=1; __Host-YAT={token}")).unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (COOKIE, cookie)]);
        let (shown, bad) = gate.shown(&headers, || NOW);
        let shown = shown.unwrap();
        assert_eq!((shown.bearer.unwrap().instance.as_str(), bad), ("shop", None));
        assert!(shown.cookie.is_some());
        let (shown, bad) = gate.shown(&headers, || NOW + LIFETIME_MS);
        assert!(shown.unwrap().bearer.is_none());
        assert_eq!(bad, Some(Bad::Expired));
        gate.revoked.add(vec!["s".into()], vec![], NOW).unwrap();
        assert_eq!(gate.shown(&headers, || NOW).1, Some(Bad::Revoked));
        let others = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer an app's own"))]);
        assert!(gate.shown(&others, || NOW).0.is_none());
    }

    #[test]
    fn a_developer_stays_for_as_long_as_the_token_is_used_and_twelve_hours_at_most() {
        let (_state, gate) = gate();
        let token = token(&gate, ADMIN);
        let mut now = NOW;
        while now < NOW + LONGEST_MS {
            assert!(gate.developer(&token, now).is_ok(), "{} minutes", (now - NOW) / 60_000);
            now += LIFETIME_MS - 1;
        }
        assert_eq!(gate.developer(&token, now), Err(Bad::Expired));
    }

    #[test]
    fn a_developer_who_paused_was_logged_out_or_is_none_does_not_stay() {
        let (_state, gate) = gate();
        let (other, token) = (token(&gate, "shop"), token(&gate, ADMIN));
        assert!(gate.developer(&token, NOW).is_ok());
        assert_eq!(gate.developer(&token, NOW + LIFETIME_MS), Err(Bad::Expired));
        assert_eq!(gate.developer(&other, NOW), Err(Bad::Elsewhere));
        gate.revoked.add(vec!["s".into()], vec![], NOW).unwrap();
        assert_eq!(gate.developer(&token, NOW + 1), Err(Bad::Revoked));
    }
}
