//! The platform's own cookies: found in what clients send, taken out of what apps get, and written. Pure.
//!
//! Each is good for one host name only (no `Domain`). Browsers accept a name that begins with `__Host-` from that host alone, so
//! no sibling host can plant one; `YRT` is what programs bring and what the login app gives them.

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use memchr::memmem;

/// A refresh token, as programs keep it.
pub(crate) const YRT: &str = "YRT";
/// A refresh token, as browsers keep it that signed in at an app, or at the login app itself.
pub(crate) const HOST_YRT: &str = "__Host-YRT";
/// An access token.
pub(crate) const HOST_YAT: &str = "__Host-YAT";
/// A sign-in that was begun: what proves that its end comes to the browser that began it, and where it goes from there.
pub(crate) const HOST_YSS: &str = "__Host-YSS";
/// All of them.
const OURS: [&str; 4] = [YRT, HOST_YRT, HOST_YAT, HOST_YSS];

/// What stands at the end of each of ours.
const ATTRIBUTES: &str = "; Path=/; HttpOnly; Secure; SameSite=Lax";

/// The value of a cookie; the first, if there are several of this name.
pub(crate) fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut pairs = fields.filter_map(|field| field.to_str().ok()).flat_map(pairs);
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn pairs(field: &str) -> impl Iterator<Item = (&str, &str)> {
    field.split(';').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// Takes ours out of a header section whose cookies are in one field. Costs one look where there are none.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let Some(field) = headers.get(COOKIE).map(HeaderValue::as_bytes) else { return };
    if memmem::find(field, b"YRT").is_none() && memmem::find(field, b"__Host-Y").is_none() {
        return;
    }
    let is_ours = |pair: &&[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        OURS.iter().any(|ours| ours.as_bytes() == name)
    };
    let others: Vec<&[u8]> =
        field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !is_ours(pair)).collect();
    match HeaderValue::from_bytes(&others.join(&b"; "[..])) {
        Ok(left) if !left.is_empty() => drop(headers.insert(COOKIE, left)),
        _ => drop(headers.remove(COOKIE)),
    }
}

/// Takes ours out of what an app sets: no app may plant what a sibling host takes for its own.
pub(crate) fn strip_set(headers: &mut HeaderMap) {
    let is_ours = |field: &HeaderValue| {
        let name =
            field.as_bytes().split(|byte| b"=;".contains(byte)).next().unwrap_or_default().trim_ascii();
        OURS.iter().any(|ours| ours.as_bytes() == name)
    };
    if headers.get_all(SET_COOKIE).iter().any(is_ours) {
        let kept: Vec<HeaderValue> =
            headers.get_all(SET_COOKIE).iter().filter(|field| !is_ours(field)).cloned().collect();
        headers.remove(SET_COOKIE);
        headers.extend(kept.into_iter().map(|field| (SET_COOKIE, field)));
    }
}

/// Whether this can be a cookie's value as it is: of what is written here, nothing else ever is.
pub(crate) fn is_value(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    !text.is_empty() && text.len() <= 4000 && text.bytes().all(fits)
}

/// Sets a cookie for so many seconds; none = as long as the browser runs. Nothing if it can't be one.
pub(crate) fn set(name: &str, value: &str, seconds: Option<i64>) -> Option<HeaderValue> {
    if !is_value(value) {
        return None;
    }
    let age = seconds.map(|seconds| format!("; Max-Age={}", seconds.max(0))).unwrap_or_default();
    sensitive(format!("{name}={value}{age}{ATTRIBUTES}"))
}

/// Has a browser forget a cookie.
pub(crate) fn clear(name: &str) -> Option<HeaderValue> {
    sensitive(format!("{name}=; Max-Age=0{ATTRIBUTES}"))
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(fields: &[&'static str]) -> HeaderMap {
        fields.iter().map(|field| (COOKIE, HeaderValue::from_static(field))).collect()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = sent(&["a=1; XYRT=no; YRT=yes;  __Host-YAT = t", "YRT=later"]);
        assert_eq!(get(&headers, YRT), Some("yes"));
        assert_eq!((get(&headers, HOST_YAT), get(&headers, HOST_YRT)), (Some("t"), None));
    }

    #[test]
    fn what_an_app_sets_is_its_own_and_none_of_ours() {
        let set = [
            "a=YRT; Path=/",
            "YRT=x; Domain=yesterday.localhost",
            " __Host-YAT =x",
            "MYRT=1",
            "__Host-YSS",
            "b",
        ];
        let mut headers: HeaderMap =
            set.iter().map(|field| (SET_COOKIE, HeaderValue::from_static(field))).collect();
        strip_set(&mut headers);
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().map(|field| field.to_str().unwrap()).collect();
        assert_eq!(left, ["a=YRT; Path=/", "MYRT=1", "b"]);
    }

    #[test]
    fn ours_are_taken_out_and_others_stay_in_order() {
        for (field, left) in [
            ("a=1; YRT=x; b=2", Some("a=1; b=2")),
            ("__Host-YAT=x; __Host-YRT=y; __Host-YSS=z", None),
            ("YRT", None),
            ("MYRT=1; YRTs=2; __Host-YATE=3", Some("MYRT=1; YRTs=2; __Host-YATE=3")),
            ("a=YRT;YRT=a", Some("a=YRT")),
        ] {
            let mut headers = sent(&[field]);
            strip(&mut headers);
            assert_eq!(headers.get(COOKIE).map(|value| value.to_str().unwrap()), left, "{field}");
        }
    }

    #[test]
    fn what_is_written_is_for_one_host_and_no_script() {
        let refresh = set(YRT, "abc-_", None).unwrap();
        assert_eq!(refresh, "YRT=abc-_; Path=/; HttpOnly; Secure; SameSite=Lax");
        let access = set(HOST_YAT, "t", Some(600)).unwrap();
        assert_eq!(access, "__Host-YAT=t; Max-Age=600; Path=/; HttpOnly; Secure; SameSite=Lax");
        assert!(access.is_sensitive());
        for hostile in ["", "a;b", "a b", "a\"", "a,b", "ä", "a\r\nX: y"] {
            assert_eq!(set(YRT, hostile, None), None, "{hostile:?}");
        }
        assert_eq!(
            clear(HOST_YSS).unwrap(),
            "__Host-YSS=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax"
        );
    }
}
