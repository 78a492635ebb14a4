//! The identity provider, asked: what it says of itself and its keys, kept for an hour, and what a code is worth. Every question is
//! bounded in bytes and time (`applib::web`); a provider that is away is left alone for some seconds, and only so many people at once
//! wait for it.

use std::sync::Arc;

use axum::body::Bytes;
use nexushub_applib::{
    time::Unix,
    web::{self, Answer, Url, Web},
};
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    oidc::{
        config::{Config, EMAIL},
        keys::Keys,
        provider::{self, Provider, Secrets, Unusable},
        token::{self, Expected, Unfit},
        word,
    },
    store::departures::Departure,
};

/// Seconds that what a provider published is kept.
pub(super) const KEPT: Unix = 3600;
/// Seconds that one is not asked for it again after it failed to tell.
pub(super) const REST: Unix = 5;
/// Codes that are redeemed at once.
pub(super) const AT_ONCE: usize = 16;

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It can't be asked.
    #[error("{0}")]
    Away(#[from] web::Error),
    /// It failed a moment ago.
    #[error("it did not answer a moment ago")]
    Resting,
    /// Too many wait for it.
    #[error("too many sign-ins at once wait for it")]
    Busy,
    /// It says what can't be.
    #[error("{0}")]
    Unusable(#[from] Unusable),
    /// It answers otherwise than it should.
    #[error("its {what} was answered with {status}{said}")]
    Status {
        /// What was asked.
        what: &'static str,
        /// The answer's status.
        status: u16,
        /// The error's word, after a colon, if there is one.
        said: String,
    },
    /// The answer is not what was asked for.
    #[error("its {0} answered something else")]
    Garbled(&'static str),
    /// Its token is not believed.
    #[error("its ID token is not believed: {0}")]
    Unfit(#[from] Unfit),
}

/// What it published, and since when that is known.
#[derive(Default)]
struct Published {
    provider: Option<(Arc<Provider>, Unix)>,
    keys: Option<(Arc<Keys>, Unix)>,
    failed: Option<Unix>,
}

/// One provider.
pub(crate) struct Issuer {
    config: Config,
    web: Web,
    discovery: Url,
    /// Where it sends browsers back to.
    redirect: String,
    published: Mutex<Published>,
    /// Places for those who wait for it.
    pub(super) redeeming: Semaphore,
}

impl Issuer {
    /// Of this configuration, for the login app at this host.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn new(config: Config, host: &str) -> Result<Self, String> {
        let web =
            Web::new(&config.authorities).map_err(|error| format!("OIDC_CA_FILE or OIDC_CA: {error}"))?;
        if !config.issuer.is_plain() && !web.trusts_somebody() {
            let why = "there are no certificate authorities on this system; name a file of them in OIDC_CA_FILE, or write them into OIDC_CA";
            return Err(why.to_owned());
        }
        let discovery = provider::discovery(&config.issuer).ok_or("OIDC_ISSUER is too long")?;
        let redirect = format!("https://{}/public/oidc/return", host.strip_suffix(":443").unwrap_or(host));
        let (published, redeeming) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Ok(Self { config, web, discovery, redirect, published, redeeming })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether it is this one that answers, if the answer says who does (RFC 9207).
    pub(crate) fn is(&self, issuer: Option<&str>) -> bool {
        issuer.is_none_or(|issuer| issuer == self.config.issuer.as_str())
    }

    /// Whether the claim and a user's name are the same: letters of an e-mail address may be large or small, and only those
    /// without an accent, since two addresses may look alike; of anything else every letter counts.
    pub(crate) fn means(&self, claim: &str, user: &str) -> bool {
        if self.config.claim == EMAIL { claim.eq_ignore_ascii_case(user) } else { claim == user }
    }

    /// Where a browser is sent to begin a sign-in.
    pub(crate) async fn authorize(&self, secrets: &Secrets, now: Unix) -> Result<String, Trouble> {
        let mut published = self.published.lock().await;
        let provider = self.provider(&mut published, now).await?;
        Ok(provider.authorize(&self.config, &self.redirect, secrets))
    }

    /// The name of the user for whom a code was given, in a sign-in that left from here.
    pub(crate) async fn who(&self, code: &str, left: &Departure, now: Unix) -> Result<String, Trouble> {
        let _place = self.redeeming.try_acquire().map_err(|_| Trouble::Busy)?;
        let (provider, keys) = self.published(now).await?;
        let token = self.redeem(&provider, code, &left.verifier).await?;
        let expected = Expected {
            issuer: self.config.issuer.as_str(),
            client: &self.config.client,
            nonce: &left.nonce,
            claim: &self.config.claim,
            now,
        };
        match token::judge(&token, &keys, &expected) {
            Err(Unfit::Key) => {
                let newer = self.newer(&provider, &keys, now).await?;
                Ok(token::judge(&token, &newer, &expected)?)
            }
            judged => Ok(judged?),
        }
    }

    async fn published(&self, now: Unix) -> Result<(Arc<Provider>, Arc<Keys>), Trouble> {
        let mut published = self.published.lock().await;
        let provider = self.provider(&mut published, now).await?;
        if let Some(keys) = fresh(&published.keys, now) {
            return Ok((provider, keys));
        }
        let keys = self.keys(&mut published, &provider, now).await?;
        Ok((provider, keys))
    }

    /// The keys that it publishes now, if others have not fetched newer ones than these already.
    async fn newer(&self, provider: &Provider, known: &Arc<Keys>, now: Unix) -> Result<Arc<Keys>, Trouble> {
        let mut published = self.published.lock().await;
        match fresh(&published.keys, now).filter(|keys| !Arc::ptr_eq(keys, known)) {
            Some(keys) => Ok(keys),
            None => self.keys(&mut published, provider, now).await,
        }
    }

    async fn provider(&self, published: &mut Published, now: Unix) -> Result<Arc<Provider>, Trouble> {
        if let Some(provider) = fresh(&published.provider, now) {
            return Ok(provider);
        }
        let body = self.fetch(published, &self.discovery, "discovery document", now).await?;
        let provider =
            Arc::new(Provider::read(&body, &self.config).inspect_err(|_| published.failed = Some(now))?);
        published.provider = Some((Arc::clone(&provider), now));
        Ok(provider)
    }

    async fn keys(
        &self,
        published: &mut Published,
        provider: &Provider,
        now: Unix,
    ) -> Result<Arc<Keys>, Trouble> {
        let body = self.fetch(published, &provider.keys, "key set", now).await?;
        let keys = Arc::new(Keys::read(&body).map_err(|_| Trouble::Garbled("key set"))?);
        published.keys = Some((Arc::clone(&keys), now));
        Ok(keys)
    }

    async fn fetch(
        &self,
        published: &mut Published,
        url: &Url,
        what: &'static str,
        now: Unix,
    ) -> Result<Bytes, Trouble> {
        if published.failed.is_some_and(|at| (now - at).abs() < REST) {
            return Err(Trouble::Resting);
        }
        let answer = self.web.get(url).await;
        let good = answer.as_ref().is_ok_and(|answer| answer.status.is_success());
        published.failed = (!good).then_some(now);
        let Answer { status, body } = answer?;
        good.then_some(body).ok_or(Trouble::Status { what, status: status.as_u16(), said: String::new() })
    }

    /// The ID token that a code is worth.
    async fn redeem(&self, provider: &Provider, code: &str, verifier: &str) -> Result<String, Trouble> {
        #[derive(Deserialize)]
        struct Redeemed {
            id_token: String,
        }
        #[derive(Deserialize)]
        struct Refused {
            error: String,
        }
        let (form, by) = provider.redeem(&self.config, &self.redirect, code, verifier);
        let answer = self.web.post(&provider.token, form, by).await?;
        if !answer.status.is_success() {
            let refused: Option<Refused> = serde_json::from_slice(&answer.body).ok();
            let said = refused.map(|refused| format!(": {}", word(&refused.error))).unwrap_or_default();
            return Err(Trouble::Status { what: "token endpoint", status: answer.status.as_u16(), said });
        }
        let redeemed = serde_json::from_slice(&answer.body).map_err(|_| Trouble::Garbled("token endpoint"));
        redeemed.map(|redeemed: Redeemed| redeemed.id_token)
    }
}

fn fresh<T>(kept: &Option<(Arc<T>, Unix)>, now: Unix) -> Option<Arc<T>> {
    let (thing, since) = kept.as_ref()?;
    ((now - since).abs() < KEPT).then(|| Arc::clone(thing))
}
