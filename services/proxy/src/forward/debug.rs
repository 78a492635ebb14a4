//! Requests for debug-api: developers', who show an administrator's access token or one that debug-api judges, and the admin app's.
//! Where the configuration says so, programs on this machine need none.

use std::{net::IpAddr, sync::Arc};

use http::{
    HeaderValue, Response,
    header::{AUTHORIZATION, FORWARDED, HeaderName, ORIGIN, VIA},
};
use nexushub_chassis::credentials::bearer;
use tokio::task::spawn_blocking;

use super::{Exchange, too_large};
use crate::{
    body::ResponseBody,
    clock,
    decide::unauthorized,
    door::Caller,
    host::{self, Place},
    identity::Identity,
    refusal::Refusal,
    tokens::Tokens,
    wellknown::LOOPBACK,
};

/// What shows that somebody else asked first: another proxy says for whom it asks, and a browser which page had it ask.
const SECOND_HAND: [HeaderName; 6] = [
    FORWARDED,
    VIA,
    ORIGIN,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("sec-fetch-site"),
];

/// Whether an address is this machine's loopback, however it is written.
fn is_here(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl Exchange {
    /// Passes the request to debug-api: a developer's, who shows an administrator's token, or else for it to judge.
    pub(super) async fn debug(&mut self, authority: &HeaderValue) -> Result<Response<ResponseBody>, Refusal> {
        let token = bearer(&self.parts.headers).filter(|token| Tokens::is_one(token));
        let Some(token) = token else {
            let caller = self.is_at_home(authority).then(|| Caller::of(LOOPBACK)).flatten();
            return self.ask_debug_api(authority, &Identity { caller, ..Identity::default() }).await;
        };
        match self.proxy.gate.developer(token, clock::about_unix_ms()) {
            Ok(access) => {
                let stays = &self.proxy.gate.stays;
                if stays.is_due(clock::about_unix_ms()) {
                    let stays = Arc::clone(stays);
                    spawn_blocking(move || stays.keep());
                }
                let by = Identity { caller: None, user: Some(access.user), spent: true };
                self.ask_debug_api(authority, &by).await
            }
            Err(bad) => {
                self.bad = Some(bad);
                let refusal = unauthorized();
                self.note_refusal(&refusal, authority);
                Err(refusal)
            }
        }
    }

    /// Whether a program on this machine asks, itself and by a name that leads here, and may do so without a token.
    fn is_at_home(&self, authority: &HeaderValue) -> bool {
        let (link, headers) = (&self.link, &self.parts.headers);
        let itself = link.direct && !link.trusted && is_here(link.peer.ip());
        let named = authority.to_str().ok().and_then(|authority| host::parse(authority).ok());
        let base = &self.proxy.policy.base_domain;
        let is_ours = |host: &str| {
            ["localhost", "127.0.0.1", "::1"].contains(&host) || host::place(host, base) != Place::Outside
        };
        self.proxy.debug_without_token
            && itself
            && named.is_some_and(|host| is_ours(&host))
            && !headers.contains_key(AUTHORIZATION)
            && !SECOND_HAND.iter().any(|name| headers.contains_key(name))
    }

    pub(super) async fn ask_debug_api(
        &mut self,
        authority: &HeaderValue,
        by: &Identity,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let pool = Arc::clone(&self.proxy.debug);
        self.first_byte = self.proxy.timing.debug_first_byte;
        let token = self.proxy.debug_token.clone();
        self.prepare(authority, by, token.as_ref(), false);
        by.tell(&mut self.parts.headers, None, clock::about_unix_ms);
        self.body.bound(self.proxy.body_bytes).map_err(|_| too_large())?;
        let taken = self.take(&pool).await.map_err(|error| self.fail(&error.into()))?;
        self.exchange(None, &pool, taken).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_loopback_addresses_are_here() {
        for here in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_here(here.parse().unwrap()), "{here}");
        }
        for away in ["10.0.0.1", "0.0.0.0", "::", "192.0.2.7", "::ffff:192.0.2.7", "fe80::1", "172.17.0.1"] {
            assert!(!is_here(away.parse().unwrap()), "{away}");
        }
    }
}
