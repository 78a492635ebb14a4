//! Header rules between a client and a backend, both ways. Pure.
//!
//! Hop-by-hop fields and those that `Connection` nominates end here; fields that say who the client is are set from the
//! socket, never taken from outside. A field that every recipient needs (`Host`, `Authorization`, ...) can't be nominated
//! away: such a nomination is ignored, so nobody can take another's credentials off a request between check and app.

mod asker;

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE,
        FORWARDED, HOST, ORIGIN, RANGE, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};

use self::asker::Asker;
pub(crate) use self::asker::{Peer, client};
use uuid::Uuid;

use crate::{cookies, guard::Verified, identity::Identity};

/// The id of this request, ours or that of a trusted proxy before this one, in requests to apps and in answers to clients.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of such an id that another proxy made.
const LONGEST_ID: usize = 128;
/// The same id under the name that the contract's apps read.
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// The trace that a request belongs to (W3C Trace Context), and what those say of it who took part.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Chooses an instance by id; only for callers that hold an app's secret.
pub(crate) const APPLICATION_ID: HeaderName = HeaderName::from_static("x-application-id");
/// Tells an app which app calls it: the id of an instance, verified here.
pub(crate) const CALLER_ID: HeaderName = HeaderName::from_static("x-caller-id");
/// Proves to debug-api that a request came through the proxy.
pub(crate) const PROXY_TOKEN: HeaderName = HeaderName::from_static("nexushub-proxy-token");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The client's address, where a trusted proxy passed its request on.
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Tells an app who its client proved to be in the handshake, and by which certificate.
const CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-certificate-subject");
const CLIENT_SHA256: HeaderName = HeaderName::from_static("x-client-certificate-sha256");

/// Fields that concern one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields that no `Connection` header takes away.
const PROTECTED: [HeaderName; 12] = [
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    ORIGIN,
    RANGE,
    SET_COOKIE,
    APPLICATION_ID,
    REQUEST_ID,
];

/// Fields that only the proxy sets; what comes from outside under these names is dropped.
const OURS: [&str; 19] = [
    "x-caller-id",
    "x-user-id",
    "x-user-name",
    "x-session-id",
    "x-nexushub-identity",
    "x-client-certificate-subject",
    "x-client-certificate-sha256",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
    "nexushub-proxy-token",
    "x-request-id",
    "x-trace-id",
    "expect", // answered here: the front sends 100 once the body is wanted
];

/// What the proxy knows about a request and tells the backend.
pub(crate) struct Edge<'a> {
    /// The other end of its connection.
    pub(crate) peer: &'a Peer,
    /// That is a proxy whose word about its own client is believed, and this is the client's address.
    pub(crate) passed_on: Option<IpAddr>,
    /// The authority that the client asked for, as it wrote it.
    pub(crate) authority: &'a HeaderValue,
    /// The id of this request.
    pub(crate) id: &'a HeaderValue,
    /// Who asks.
    pub(crate) by: &'a Identity,
    /// The platform's own cookies are for who is asked.
    pub(crate) keeps_cookies: bool,
    /// The protocol that the client asks to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// What proves to debug-api that it is the proxy who calls.
    pub(crate) token: Option<&'a HeaderValue>,
}

/// The trace that a request belongs to, as its `traceparent` says it from here on: the client's, or else a new one that bears the
/// request's own id. Of one that is malformed or said twice nothing goes on, nor what was said about it.
pub(crate) fn join_trace(headers: &mut HeaderMap, id: &HeaderValue) -> HeaderValue {
    let mut said = headers.get_all(TRACEPARENT).into_iter();
    let parent = match (said.next(), said.next()) {
        (Some(parent), None) if trace_id(parent).is_some() => Some(as_version_00(parent)),
        _ => None,
    };
    let parent = parent.unwrap_or_else(|| {
        headers.remove(TRACESTATE);
        new_trace(id)
    });
    headers.insert(TRACEPARENT, parent.clone());
    parent
}

/// A trace that bears this id, if that is a UUID; else one of its own.
fn new_trace(id: &HeaderValue) -> HeaderValue {
    let uuid = id.to_str().ok().and_then(|id| Uuid::try_parse(id).ok());
    let uuid = uuid.filter(|uuid| uuid.as_u64_pair().1 != 0).unwrap_or_else(Uuid::new_v4);
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-01";
    uuid.simple().encode_lower(&mut parent[3..35]);
    parent.copy_within(19..35, 36);
    HeaderValue::from_bytes(&parent).expect("digits and hyphens are printable ASCII")
}

/// What version 00 knows of a `traceparent` of any: of the flags of a later one, whether it is sampled.
fn as_version_00(parent: &HeaderValue) -> HeaderValue {
    let parent = match parent.as_bytes() {
        [b'0', b'0', ..] => Ok(parent.clone()),
        later => {
            let sampled = matches!(later[54], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f');
            let flags = if sampled { b"01" } else { b"00" };
            HeaderValue::from_bytes(&[b"00", &later[2..53], flags].concat())
        }
    };
    parent.expect("digits and hyphens are printable ASCII")
}

/// The trace of a `traceparent`: of `00-<32 hex digits>-<16>-<2>`, the ids not all zero, the first. A later version begins so,
/// and may go on after a hyphen.
pub(crate) fn trace_id(value: &HeaderValue) -> Option<&str> {
    let value = value.to_str().ok()?;
    let mut parts = value.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |text: &str, length| hex(text, length) && text.bytes().any(|byte| byte != b'0');
    let known = match version {
        "00" => parts.next().is_none(),
        later => hex(later, 2) && later != "ff",
    };
    (known && id(trace, 32) && id(span, 16) && hex(flags, 2)).then_some(trace)
}

/// Bytes of a request's head, as it is kept.
pub(crate) fn bytes(head: &Parts) -> u64 {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    (target + fields.sum::<usize>()) as u64
}

/// The id that a request was given by who passes it on, if it is a short token, and one.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut said = headers.get_all(REQUEST_ID).into_iter();
    let id = said.next().filter(|id| (1..=LONGEST_ID).contains(&id.len()) && said.next().is_none())?;
    let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    id.as_bytes().iter().all(unreserved).then_some(id)
}

/// What the proxy says of a request: fields that are in no header section of a client's, so nobody looks for them before they are
/// written after those that are.
pub(crate) type Told = Vec<(HeaderName, HeaderValue)>;

/// Makes a client's header section fit for a backend, and tells what goes out with it.
pub(crate) fn toward_backend(headers: &mut HeaderMap, edge: Edge<'_>) -> Told {
    let trailers = accepts_trailers(headers);
    let asker = Asker::of(headers, &edge);
    strip_nominated(headers);
    strip_those(headers, |name| is_hop_by_hop(name) || OURS.contains(&name.as_str()) || is_lookalike(name));
    if edge.by.spent {
        headers.remove(AUTHORIZATION); // a secret or a token, which is nobody else's business
    }
    if edge.by.caller.is_none() {
        headers.remove(APPLICATION_ID);
    }
    join_cookies(headers);
    if !edge.keeps_cookies {
        cookies::strip(headers);
    }
    headers.insert(HOST, edge.authority.clone());
    let told = told(asker, &edge);
    if let Some(protocol) = edge.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    } else if trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    told
}

/// All of these are among `OURS`, so none is said twice.
fn told(asker: Asker, edge: &Edge<'_>) -> Told {
    let mut told = Told::with_capacity(8);
    told.push((FORWARDED_FOR, asker.path));
    told.push((FORWARDED_HOST, edge.authority.clone()));
    told.push((FORWARDED_PROTO, asker.scheme));
    told.push((FORWARDED, asker.forwarded));
    told.push((REQUEST_ID, edge.id.clone()));
    told.push((TRACE_ID, edge.id.clone()));
    if let Some(address) = edge.passed_on.and_then(|client| HeaderValue::try_from(client.to_string()).ok()) {
        told.push((REAL_IP, address));
    }
    if let Some(token) = edge.token {
        told.push((PROXY_TOKEN, token.clone()));
    }
    told
}

/// A prepared header section with what is told besides, for whoever writes none himself.
pub(crate) fn whole(headers: &HeaderMap, told: &Told) -> HeaderMap {
    let mut whole = headers.clone();
    for (name, value) in told {
        whole.append(name, value.clone());
    }
    whole
}

/// Says in a prepared header section who the client is.
pub(crate) fn identify(headers: &mut HeaderMap, client: &Verified) {
    headers.insert(CLIENT_SUBJECT, client.subject.clone());
    headers.insert(CLIENT_SHA256, client.sha256.clone());
}

/// Makes a backend's header section fit for a client; `upgraded` to this protocol, if it is a 101.
pub(crate) fn toward_client(headers: &mut HeaderMap, upgraded: Option<HeaderValue>) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip(headers);
    if let Some(protocol) = upgraded {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Removes hop-by-hop fields and those that `Connection` nominates.
pub(crate) fn strip(headers: &mut HeaderMap) {
    strip_nominated(headers);
    strip_those(headers, is_hop_by_hop);
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

fn strip_nominated(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
}

/// Removes what is told so. Each field that is there is looked at once: most of what may have to go is not there.
fn strip_those(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// Removes from a trailer section what none may bring in: trailers that an app merges must not say what headers can't.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_nominated(trailers);
    strip_those(trailers, |name| is_hop_by_hop(name) || is_decisive(name.as_str()) || is_lookalike(name));
}

/// Whether `Connection` holds this option.
pub(crate) fn has_connection_option(headers: &HeaderMap, option: &str) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(option.as_bytes()))
}

/// The fields that `Connection` nominates and that may go.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &CONNECTION)
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !PROTECTED.contains(name))
        .collect()
}

/// Whether its sender takes trailers.
pub(crate) fn accepts_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

/// The comma-separated tokens of every line of a field.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Whether apps believe what a field of this name says about who asks, or for whom.
fn is_decisive(name: &str) -> bool {
    OURS.contains(&name) || [APPLICATION_ID, HOST, AUTHORIZATION].iter().any(|decisive| decisive == name)
}

/// Some servers hand `X_Forwarded_For` to an app as if it were `X-Forwarded-For`: such doubles go.
fn is_lookalike(name: &HeaderName) -> bool {
    name.as_str().contains('_') && is_decisive(&name.as_str().replace('_', "-"))
}

/// HTTP/2 lets a client split `Cookie` into several fields; HTTP/1.1 knows one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).into_iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::door::Caller;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn sent(pairs: &[(&str, &str)], from_app: bool) -> HeaderMap {
        let caller = from_app.then(|| Caller::of("shop")).flatten();
        toward_app(pairs, &Identity { spent: caller.is_some(), caller, user: None })
    }

    fn toward_app(pairs: &[(&str, &str)], by: &Identity) -> HeaderMap {
        let mut headers = map(pairs);
        let peer = Peer::at(HeaderValue::from_static("192.0.2.7"));
        let authority = HeaderValue::from_static("hello.yesterday.localhost:8443");
        let id = HeaderValue::from_static("the-id");
        let edge = Edge {
            peer: &peer,
            passed_on: None,
            authority: &authority,
            id: &id,
            by,
            keeps_cookies: false,
            upgrade: None,
            token: None,
        };
        let told = toward_backend(&mut headers, edge);
        by.tell(&mut headers, Some(&[7; 32]), || 1_800_000_000_000);
        whole(&headers, &told)
    }

    #[test]
    fn hop_by_hop_fields_end_at_the_proxy() {
        let headers = sent(
            &[
                ("connection", "keep-alive, x-private"),
                ("connection", "X-Also"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic x"),
                ("proxy-connection", "keep-alive"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
                ("x-private", "1"),
                ("x-also", "1"),
                ("x-kept", "1"),
            ],
            false,
        );
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "forwarded",
                "host",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-kept",
                "x-request-id",
                "x-trace-id"
            ]
        );
    }

    #[test]
    fn a_field_that_every_recipient_needs_is_not_nominated_away() {
        let headers = sent(
            &[
                (
                    "connection",
                    "authorization, cookie, host, content-length, content-type, x-forwarded-for, x-request-id",
                ),
                ("authorization", "Bearer secret"),
                ("cookie", "a=1"),
                ("content-length", "5"),
                ("content-type", "text/plain"),
            ],
            false,
        );
        assert_eq!(headers["authorization"], "Bearer secret");
        assert_eq!(headers["cookie"], "a=1");
        assert_eq!(headers["content-length"], "5");
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers["host"], "hello.yesterday.localhost:8443");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-request-id"], "the-id");
    }

    #[test]
    fn what_the_proxy_sets_is_never_taken_from_outside() {
        let headers = sent(
            &[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "http"),
                ("forwarded", "for=10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x-request-id", "mine"),
                ("x-trace-id", "mine"),
                ("nexushub-proxy-token", "guess"),
                ("nexushub_proxy_token", "guess"),
                ("x_forwarded_for", "10.0.0.1"),
                ("x_application_id", "other"),
                ("x-application-id", "other"),
                ("x-caller-id", "admin"),
                ("x_caller_id", "admin"),
                ("x-user-id", "1"),
                ("x_user_id", "1"),
                ("x-user-name", "root"),
                ("x-session-id", "1"),
                ("x-nexushub-identity", "v1;t=1;u=1;n=;s=;c=;m=00"),
                ("x-client-certificate-subject", "CN=admin"),
                ("x_client_certificate_subject", "CN=admin"),
                ("x-client-certificate-sha256", "00"),
                ("expect", "100-continue"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ],
            false,
        );
        assert_eq!(headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-request-id"], "the-id");
        assert_eq!(headers["x-trace-id"], "the-id");
        assert!(headers.contains_key("traceparent"));
        assert_eq!(headers["forwarded"], "for=192.0.2.7;host=\"hello.yesterday.localhost:8443\";proto=https");
        for gone in [
            "x-real-ip",
            "nexushub-proxy-token",
            "nexushub_proxy_token",
            "x_forwarded_for",
            "x_application_id",
            "x-caller-id",
            "x_caller_id",
            "x-user-id",
            "x_user_id",
            "x-user-name",
            "x-session-id",
            "x-nexushub-identity",
            "x-client-certificate-subject",
            "x_client_certificate_subject",
            "x-client-certificate-sha256",
            "expect",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert!(!headers.contains_key("x-application-id"));
    }

    #[test]
    fn an_app_that_calls_keeps_its_application_id_is_named_and_its_secret_stays_here() {
        let headers = sent(
            &[("x-application-id", "admin"), ("x-caller-id", "admin"), ("authorization", "Bearer secret")],
            true,
        );
        assert_eq!(headers["x-application-id"], "admin");
        assert_eq!(headers.get_all("x-caller-id").iter().collect::<Vec<_>>(), ["shop"]);
        assert!(!headers.contains_key("authorization"));
    }

    #[test]
    fn what_logs_in_at_the_platform_is_not_shown_to_its_apps() {
        let cookies = ("cookie", "YRT=refresh; theme=dark; __Host-YAT=access");
        let user = |spent| Identity { spent, ..Identity::default() };
        let token = ("authorization", "Bearer nxa1.token");
        let headers = toward_app(&[cookies, token], &user(true));
        assert_eq!(headers["cookie"], "theme=dark");
        assert!(!headers.contains_key("authorization"));
        let headers = toward_app(&[("authorization", "Bearer the app's own")], &user(false));
        assert_eq!(headers["authorization"], "Bearer the app's own");
    }

    #[test]
    fn trailers_say_nothing_that_headers_may_not() {
        let mut trailers =
            map(&[("x-sum", "7"), ("x-caller-id", "admin"), ("x_caller_id", "admin"), ("host", "x")]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let headers = sent(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")], false);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn only_trailers_of_te_are_passed_on() {
        let headers = sent(&[("te", "gzip, trailers")], false);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["connection"], "te");
        assert!(!sent(&[("te", "gzip")], false).contains_key("te"));
    }

    #[test]
    fn an_upgrade_is_asked_for_in_our_words() {
        let mut headers =
            map(&[("connection", "Upgrade, x-private"), ("upgrade", "websocket"), ("x-private", "1")]);
        let value = HeaderValue::from_static("v");
        let upgrade = Some(HeaderValue::from_static("websocket"));
        let edge = Edge {
            peer: &Peer::at(value.clone()),
            passed_on: None,
            authority: &value,
            id: &value,
            by: &Identity::default(),
            keeps_cookies: false,
            upgrade,
            token: Some(&value),
        };
        let told = toward_backend(&mut headers, edge);
        let headers = whole(&headers, &told);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(headers["nexushub-proxy-token"], "v");
        assert!(!headers.contains_key("x-private"));
    }

    #[test]
    fn answers_lose_hop_by_hop_fields_and_a_doubtful_length() {
        let mut headers = map(&[
            ("connection", "close, x-private"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("x-private", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        toward_client(&mut headers, None);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(headers.len(), 2, "{headers:?}");
    }

    #[test]
    fn a_request_without_a_trace_or_with_a_malformed_one_begins_its_own() {
        let id = HeaderValue::from_static("f61746bd-b598-447d-813d-e51e6fd849b4");
        let whole = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for values in [
            &[""][..],
            &["00-0-0-00"],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["x"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more"],
            &[whole, whole],
        ] {
            let values = values.iter().map(|value| ("traceparent", *value));
            let mut headers = map(&values.chain([("tracestate", "of=theirs")]).collect::<Vec<_>>());
            let parent = join_trace(&mut headers, &id);
            assert_eq!(trace_id(&parent), Some("f61746bdb598447d813de51e6fd849b4"), "{headers:?}");
            assert!(headers.get_all(TRACEPARENT).into_iter().eq([&parent]) && headers.len() == 1);
            assert_eq!(headers[TRACEPARENT], "00-f61746bdb598447d813de51e6fd849b4-813de51e6fd849b4-01");
        }
        for theirs in ["their-number.7", "00000000-0000-0000-0000-000000000000"].map(HeaderValue::from_static)
        {
            let (one, other) = (new_trace(&theirs), new_trace(&theirs));
            assert!(trace_id(&one).is_some() && one != other, "{theirs:?} makes no trace");
        }
    }

    #[test]
    fn a_trace_that_comes_goes_on_and_a_later_version_as_the_one_that_is_known_here() {
        let id = HeaderValue::from_static("f61746bd-b598-447d-813d-e51e6fd849b4");
        let whole = |version: &str, flags: &str, more: &str| {
            format!("{version}-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}{more}")
        };
        for (came, goes) in [
            (whole("00", "01", ""), whole("00", "01", "")),
            (whole("00", "00", ""), whole("00", "00", "")),
            (whole("01", "03", ""), whole("00", "01", "")),
            (whole("cc", "fe", "-what-the-future-knows"), whole("00", "00", "")),
        ] {
            let mut headers = map(&[("traceparent", &came), ("tracestate", "of=theirs")]);
            let parent = join_trace(&mut headers, &id);
            assert_eq!(trace_id(&parent), Some("0af7651916cd43dd8448eb211c80319c"));
            assert_eq!(headers[TRACEPARENT], goes);
            assert_eq!(headers[TRACESTATE], "of=theirs");
        }
    }

    #[test]
    fn an_id_that_another_proxy_made_is_a_short_token() {
        let longest = "a".repeat(LONGEST_ID);
        for (ids, kept) in [
            (&["A-1_b.c~9"][..], true),
            (&[&longest], true),
            (&[&format!("{longest}a")], false),
            (&[""], false),
            (&["a b"], false),
            (&["a\"b"], false),
            (&["a", "b"], false),
            (&[], false),
        ] {
            let fields: Vec<_> = ids.iter().map(|id| ("x-request-id", *id)).collect();
            assert_eq!(request_id(&map(&fields)).is_some(), kept, "{ids:?}");
        }
    }
}
