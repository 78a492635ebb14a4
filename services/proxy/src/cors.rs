//! Scripts of other origins: which may ask for an app, where its instance lists some. The proxy answers for the app then, what is
//! asked before and what is said with the answer; an app of which nothing is listed says what it likes. Pure.
//!
//! Cookies are never invited: a script of another origin shows an access token.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

use crate::rules::Rules;

/// How long a browser may remember what it was told, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");
/// What an app says of its own that would contradict.
const SAID: [HeaderName; 5] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE,
];

/// The origin of a request, if its scripts may ask.
pub(crate) fn listed(request: &HeaderMap, rules: &Rules) -> Option<HeaderValue> {
    let origin = request.get(ORIGIN)?;
    rules.cors.iter().any(|listed| origin == listed.as_str()).then(|| origin.clone())
}

/// Makes an answer say whether the script that asked may read it.
pub(crate) fn say(answer: &mut HeaderMap, origin: Option<HeaderValue>) {
    for name in &SAID {
        answer.remove(name);
    }
    answer.append(VARY, HeaderValue::from_static("origin"));
    match origin {
        Some(origin) => drop(answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin)),
        None => drop(answer.remove(ACCESS_CONTROL_EXPOSE_HEADERS)),
    }
}

/// What a browser is told that asks before it asks; nothing that helps if the origin isn't listed.
pub(crate) fn preflight(request: &HeaderMap, rules: &Rules) -> HeaderMap {
    let mut answer = HeaderMap::new();
    let origin = listed(request, rules);
    if origin.is_some() {
        let asked = |name| request.get(name).cloned();
        let told = [
            (ACCESS_CONTROL_ALLOW_METHODS, asked(ACCESS_CONTROL_REQUEST_METHOD)),
            (ACCESS_CONTROL_ALLOW_HEADERS, asked(ACCESS_CONTROL_REQUEST_HEADERS)),
            (ACCESS_CONTROL_MAX_AGE, Some(REMEMBERED)),
        ];
        say(&mut answer, origin);
        answer.extend(told.into_iter().filter_map(|(name, value)| Some((name, value?))));
    } else {
        say(&mut answer, None);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { cors: vec!["https://shop.example".into()], ..Rules::default() }
    }

    fn asked(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
            (ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization")),
        ])
    }

    #[test]
    fn a_listed_origin_is_told_what_it_asked_for_and_no_other() {
        let answer = preflight(&asked("https://shop.example"), &rules());
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
        assert_eq!(
            (&answer[ACCESS_CONTROL_ALLOW_METHODS], &answer[ACCESS_CONTROL_ALLOW_HEADERS]),
            (&HeaderValue::from_static("PUT"), &HeaderValue::from_static("authorization"))
        );
        for origin in
            ["https://shop.example.evil", "https://shop.example:8443", "null", "http://shop.example"]
        {
            let answer = preflight(&asked(origin), &rules());
            assert_eq!(answer.keys().collect::<Vec<_>>(), [VARY], "{origin}");
        }
    }

    #[test]
    fn an_app_does_not_contradict() {
        let mut answer = HeaderMap::from_iter([
            (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
        ]);
        say(&mut answer, None);
        assert_eq!(answer.keys().collect::<Vec<_>>(), [VARY]);
    }
}
