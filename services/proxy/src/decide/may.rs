//! Who may ask an app for what, by its rules. Pure.
//!
//! ```text
//! /internal   the app itself, and internal_callers, by their own secret
//! /public     everybody
//! /api        where it is guarded (require_login, callers or sign_in): the app itself and callers by their own secret, a user by
//!             an access token for this app; with sign_in also by the cookie that holds one
//! the rest    with sign_in as a guarded /api, else everybody
//! ```
//! A browser sends cookies whoever made it ask. So what changes something, and what opens a WebSocket, counts by its cookie only
//! if the app's own page asked for it.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT, ORIGIN, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
};

use super::{Found, Policy, unauthorized};
use crate::{
    door::Caller,
    host,
    identity::Identity,
    paths::Class,
    refusal::{Form, Refusal},
    tokens::Access,
};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The tokens of a request that are good now, whatever app they are good for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// As its bearer.
    pub(crate) bearer: Option<Arc<Access>>,
    /// In its cookie.
    pub(crate) cookie: Option<Arc<Access>>,
}

/// Why a request may not be passed on as it is.
#[derive(Debug)]
pub(super) enum No {
    Refused(Refusal),
    /// Its user may sign in and ask again.
    SignIn,
}

/// Who calls by a secret, and whether the request's bearer was some secret or token of the platform.
pub(super) struct Claim {
    pub(super) caller: Option<Caller>,
    pub(super) spent: bool,
}

/// Who asks, if they may.
pub(super) fn may(
    parts: &Parts,
    authority: &HeaderValue,
    (class, claim): (Class, Claim),
    shown: &Shown,
    found: &Found<'_>,
    policy: &Policy,
) -> Result<Identity, No> {
    let rules = &found.route.entry.rules;
    let own = |caller: &Caller| caller.is(&found.route.entry.id);
    let listed = |caller: &Caller, list: &[String]| own(caller) || list.iter().any(|id| caller.is(id));
    let guarded = match class {
        Class::Internal => {
            return match claim.caller {
                None => Err(No::Refused(unauthorized())),
                Some(caller) if listed(&caller, &rules.internal_callers) => Ok(by_secret(caller)),
                Some(_) => Err(No::Refused(forbidden())),
            };
        }
        Class::Public => false,
        Class::Api => policy.require_login || rules.sign_in || !rules.callers.is_empty(),
        _ => rules.sign_in,
    };
    match claim.caller {
        Some(caller) if !guarded || listed(&caller, &rules.callers) => return Ok(by_secret(caller)),
        Some(_) => return Err(No::Refused(forbidden())),
        None => {}
    }
    let good = |access: &&Arc<Access>| access.instance == found.audience;
    if let Some(access) = shown.bearer.as_ref().filter(good) {
        return Ok(by_token(access, true));
    }
    let cookie = shown.cookie.as_ref().filter(|_| rules.sign_in).filter(good);
    let own_page = is_harmless(parts) || is_same_origin(&parts.headers, authority);
    match cookie {
        Some(access) if own_page => Ok(by_token(access, claim.spent)),
        _ if !guarded => Ok(Identity { spent: claim.spent, ..Identity::default() }),
        Some(_) => Err(No::Refused(cross_site())),
        None if rules.sign_in && is_navigation(parts) => Err(No::SignIn),
        None => Err(No::Refused(unauthorized())),
    }
}

fn by_secret(caller: Caller) -> Identity {
    Identity { caller: Some(caller), user: None, spent: true }
}

fn by_token(access: &Access, spent: bool) -> Identity {
    Identity { caller: None, user: Some(Arc::clone(&access.user)), spent }
}

/// Whether it only looks. What asks for a WebSocket shows a key, over whichever version of HTTP.
fn is_harmless(parts: &Parts) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && ![UPGRADE, SEC_WEBSOCKET_KEY].iter().any(|name| parts.headers.contains_key(name))
}

/// Whether a browser wants to show its answer as a page.
fn is_navigation(parts: &Parts) -> bool {
    parts.method == Method::GET
        && parts.headers.contains_key(ACCEPT)
        && Form::of(&parts.headers) == Form::Page
}

/// Whether a browser says that a page of the very host asked for it.
pub(crate) fn is_same_origin(headers: &HeaderMap, authority: &HeaderValue) -> bool {
    if headers.get(FETCH_SITE).is_some_and(|site| site == "same-origin") {
        return true;
    }
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let page = origin.and_then(|origin| origin.strip_prefix("https://")).and_then(site);
    page.is_some() && page == authority.to_str().ok().and_then(site)
}

/// Whether a browser says that another site's page asked for it. Programs say nothing.
pub(crate) fn is_cross_site(headers: &HeaderMap, authority: &HeaderValue) -> bool {
    let told = headers.contains_key(ORIGIN)
        || headers.get(FETCH_SITE).is_some_and(|site| site != "none" && site != "same-origin");
    told && !is_same_origin(headers, authority)
}

/// Host and port of an authority.
fn site(authority: &str) -> Option<(String, u16)> {
    let host = host::parse(authority).ok()?.into_owned();
    let port = match authority.rsplit_once(':') {
        Some((_, digits)) if !digits.contains(']') => digits.parse().ok()?,
        _ => 443,
    };
    Some((host, port))
}

fn forbidden() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "Forbidden")
}

/// What a page of another site may not have a browser ask for.
pub(crate) fn cross_site() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "Forbidden: another site's page asked for it")
}
