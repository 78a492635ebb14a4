//! A browser signs in at an app. Nothing that signs in is ever in a page or readable by a script, and no cookie leaves its host.
//!
//! ```text
//! app's host: a page --303--> /public/signin: has this host a session? yes --------------------------------> 303 the page
//!                                 | no: keeps a random state in a cookie
//!                                 v
//! login's host: /signin?app&state(SHA-256) -- the user logs in --> 303 /public/return?app&code&state
//!                                                                         | where the app is, says the table
//!                                                                         v
//! app's host: /public/session?code&state: the state is that of the cookie? the code is redeemed -----------> 303 the page
//! ```
//! So a code is worth nothing in another browser than the one that began, nobody is sent to another site, and of where to go on
//! only the browser's own cookie says.

use aws_lc_rs::rand;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    Exchange,
    account::{Renewed, forget_all, see_other, user_id, with},
    ask::{Grant, Said, unusable},
};
use crate::{
    body::ResponseBody,
    cookies::{self, HOST_YAT, HOST_YRT, HOST_YSS, YRT},
    decide::{cross_site, is_same_origin, only},
    identity::percent,
    paths::decode_bytes,
    refusal::Refusal,
    table::Route,
    tokens::LIFETIME_MS,
};

/// How long signing in may take, in seconds.
const SIGNING_IN: i64 = 600;
/// Longest target to go on to.
const LONGEST: usize = 1500;
/// Longest code or state.
const LONGEST_WORD: usize = 256;

impl Exchange {
    /// Sends a browser to where it is signed in.
    pub(super) fn to_sign_in(&self) -> Response<ResponseBody> {
        let target = self.parts.uri.path_and_query().map_or("/", |target| target.as_str());
        see_other(&format!("/public/signin?continue={}", percent(target)), HeaderMap::new())
    }

    /// Signs a browser in at this app if this host has a session; else has it log in.
    pub(super) async fn sign_in(
        &mut self,
        route: &Route,
        audience: &str,
        authority: &HeaderValue,
    ) -> Result<Response<ResponseBody>, Refusal> {
        self.is_get()?;
        let target = self.query("continue").filter(|target| is_local(target)).unwrap_or_else(|| "/".into());
        if let Some(token) =
            cookies::get(&self.parts.headers, HOST_YRT).filter(|token| cookies::is_value(token))
        {
            match self.renew(token, audience, authority).await? {
                Said::Yes(renewed) => return Ok(signed_in(&target, &renewed, HeaderMap::new())),
                Said::Denied => return Err(self.refused(audience, "denied")),
                Said::No(_) => {}
            }
        }
        let mut state = [0; 32];
        rand::fill(&mut state).map_err(|_| unusable("/signin", "no random numbers"))?;
        let state = BASE64URL_NOPAD.encode(&state);
        let kept = format!("{state}.{}", BASE64URL_NOPAD.encode(target.as_bytes()));
        let entry = &route.entry;
        let name = if entry.display_name.is_empty() { &entry.host } else { &entry.display_name };
        let url = format!(
            "{}/signin?app={}&state={}&name={}",
            self.url_of_login(authority),
            percent(audience),
            digest(&state),
            percent(name)
        );
        Ok(see_other(&url, with(HeaderMap::new(), cookies::set(HOST_YSS, &kept, Some(SIGNING_IN)))))
    }

    /// Sends a browser that has logged in back to the app where it signs in: to a host of the table, and nowhere else.
    pub(super) fn send_back(&self, authority: &HeaderValue) -> Result<Response<ResponseBody>, Refusal> {
        self.is_get()?;
        let word = |name| self.query(name).filter(|word| is_word(word)).ok_or_else(malformed);
        let (app, code, state) = (word("app")?, word("code")?, word("state")?);
        let host = {
            let table = self.proxy.table.borrow();
            let route = table.by_id(&app).filter(|route| route.entry.rules.sign_in);
            route.map(|route| route.entry.host.clone())
        };
        let host = host.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no such app to sign in at"))?;
        let url = format!("{}/public/session?code={code}&state={state}", self.url_of(&host, authority));
        Ok(see_other(&url, HeaderMap::new()))
    }

    /// Makes a session at this host of what the login app gave, for the browser that asked for it.
    pub(super) async fn session(
        &mut self,
        audience: &str,
        authority: &HeaderValue,
    ) -> Result<Response<ResponseBody>, Refusal> {
        self.is_get()?;
        let word = |name| self.query(name).filter(|word| is_word(word)).ok_or_else(malformed);
        let (code, state) = (word("code")?, word("state")?);
        let kept = cookies::get(&self.parts.headers, HOST_YSS).and_then(begun);
        let own = kept.filter(|(begun, _)| bool::from(digest(begun).as_bytes().ct_eq(state.as_bytes())));
        let Some((_, target)) = own else {
            self.audit("session.sign_in", "", audience, Some("begun by another browser"));
            return Err(elsewhere());
        };
        let path = "/internal/redeem";
        let question =
            json!({ "Code": code, "ApplicationID": audience, "State": state, "Address": self.client });
        let said = self.ask_login::<Grant>(path, &question, authority).await?;
        match self.granted(path, said, audience).await? {
            Said::Yes(renewed) => {
                self.audit("session.sign_in", &user_id(&renewed.user), audience, None);
                Ok(signed_in(&target, &renewed, forget_all(HeaderMap::new(), &[HOST_YSS])))
            }
            Said::Denied => Err(self.refused(audience, "denied")),
            Said::No(error) => {
                self.audit("session.sign_in", "", audience, Some(&error));
                Err(elsewhere())
            }
        }
    }

    /// Ends the sessions of a browser's user, asked for by a page of this host.
    pub(super) async fn sign_out(
        &mut self,
        authority: &HeaderValue,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if self.parts.method != Method::POST {
            return Err(only("POST"));
        }
        if !is_same_origin(&self.parts.headers, authority) {
            return Err(cross_site());
        }
        if let Some(shown) = self.refresh_token() {
            self.end_sessions(&shown.token, authority).await?;
        }
        // Of either name: what an earlier version left in a browser would outlive this once.
        let forgotten = forget_all(HeaderMap::new(), &[HOST_YRT, YRT, HOST_YAT, HOST_YSS]);
        Ok(see_other(&format!("{}/", self.url_of_login(authority)), forgotten))
    }

    fn is_get(&self) -> Result<(), Refusal> {
        if self.parts.method == Method::GET { Ok(()) } else { Err(only("GET")) }
    }

    /// A parameter of the request's query; the first of its name.
    fn query(&self, name: &str) -> Option<String> {
        let pairs = self.parts.uri.query()?.split('&');
        let (_, value) = pairs.filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name)?;
        String::from_utf8(decode_bytes(value)).ok()
    }
}

/// Goes on, with a session in cookies.
fn signed_in(target: &str, renewed: &Renewed, headers: HeaderMap) -> Response<ResponseBody> {
    let headers = with(headers, cookies::set(HOST_YRT, &renewed.refresh, Some(renewed.lasts)));
    let headers = with(headers, cookies::set(HOST_YAT, &renewed.access, Some(LIFETIME_MS / 1000)));
    see_other(target, headers)
}

/// The state of a sign-in that was begun, and where it goes on to.
fn begun(cookie: &str) -> Option<(&str, String)> {
    let (state, target) = cookie.split_once('.')?;
    let target = String::from_utf8(BASE64URL_NOPAD.decode(target.as_bytes()).ok()?).ok()?;
    is_local(&target).then_some((state, target))
}

/// Whether a target is one of this host and can't be read as another's.
fn is_local(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    target.len() <= LONGEST
        && target.starts_with('/')
        && !target.starts_with("//")
        && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
        && !["/public/signin", "/public/session", "/public/signout"].contains(&path)
}

/// Whether it is a code, a state or an id: nothing in it that means something in a URL.
fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST_WORD && text.bytes().all(fits)
}

fn digest(state: &str) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(state))
}

fn malformed() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "a part of the sign-in is missing or malformed")
}

fn elsewhere() -> Refusal {
    let text = "This sign-in was begun elsewhere or has expired: open the app and sign in again";
    Refusal::new(StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_of_this_host_is_gone_on_to() {
        for good in ["/", "/a/b?c=d&e=//x", "/%2f%2fevil.example", "/public/x", "/a:b@c"] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/a b",
            "/a\r\nX: y",
            "/ä",
            "/\t/evil.example",
            "/public/signin",
            "/public/signout?x",
            "/#a",
            "javascript:alert(1)",
        ] {
            assert!(!is_local(bad), "{bad:?}");
        }
        assert!(!is_local(&format!("/{}", "a".repeat(LONGEST))));
    }

    #[test]
    fn what_was_begun_is_read_back_and_nothing_else() {
        let target = BASE64URL_NOPAD.encode(b"/a?b");
        assert_eq!(begun(&format!("state.{target}")), Some(("state", "/a?b".to_owned())));
        let evil = BASE64URL_NOPAD.encode(b"//evil.example");
        for bad in ["", "state", "state.%", &format!("state.{evil}")] {
            assert_eq!(begun(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_word_means_nothing_in_a_url() {
        assert!(is_word("aZ0-_"));
        for bad in ["", "a b", "a&b", "a=b", "a%b", "../a", "a.b", "ä"] {
            assert!(!is_word(bad), "{bad}");
        }
    }
}
