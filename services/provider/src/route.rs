//! What an instance says of its requests besides its host name, and the one place where that is judged. What it comes to are
//! claims: a host name or a wildcard, and a path below which everything is the claimant's (`merge.rs` says who gets it).

use std::{collections::BTreeSet, path::PathBuf};

use nexushub_chassis::names::{HostName, HostNameError, InstanceId, is_name, port, shown};
use serde::{Deserialize, Serialize};

use crate::{
    instance::Instance,
    typed::{BadField, Judge},
};

/// Most further host names of one instance.
const HOSTS_MAX: usize = 32;
/// Longest path prefix, in bytes.
const PREFIX_MAX: usize = 256;
/// Most callers of either kind, and most origins.
const LISTED_MAX: usize = 64;
/// Longest name of a group.
const BALANCE_MAX: usize = 64;
/// What stands for one or more labels.
const ANY: &str = "*";

/// What an app is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from its first byte on.
    H2c,
}

/// Which requests an instance gets and how; what is absent or empty is as if there were no such table.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// What the app is spoken to in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Further host names and wildcards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Only what is asked for below this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The app is asked for the rest of the path.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Those who say the same share the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// Bytes of one request's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Who issues the certificates that its clients need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
    /// Instances that may ask for its `/api`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// Instances that may ask for its `/internal`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub internal_callers: Vec<String>,
    /// It is for users who are signed in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sign_in: bool,
    /// Origins whose scripts may ask for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cors: Vec<String>,
}

impl Route {
    /// Itself where it says something, else what is below: nobody who names a caller takes away a guard that he does not know of.
    #[must_use]
    pub fn over(&self, lower: &Self) -> Self {
        let list = |upper: &[String], lower: &[String]| if upper.is_empty() { lower } else { upper }.to_vec();
        Self {
            protocol: self.protocol.or(lower.protocol),
            hosts: list(&self.hosts, &lower.hosts),
            path_prefix: self.path_prefix.clone().or_else(|| lower.path_prefix.clone()),
            strip_prefix: self.strip_prefix || lower.strip_prefix,
            balance: self.balance.clone().or_else(|| lower.balance.clone()),
            max_body_bytes: self.max_body_bytes.or(lower.max_body_bytes),
            client_ca: self.client_ca.clone().or_else(|| lower.client_ca.clone()),
            callers: list(&self.callers, &lower.callers),
            internal_callers: list(&self.internal_callers, &lower.internal_callers),
            sign_in: self.sign_in || lower.sign_in,
            cors: list(&self.cors, &lower.cors),
        }
    }

    /// What stands between values that each can be: also where they come from two sources.
    pub(crate) fn discord(&self) -> Option<BadField> {
        let below = self.path_prefix.is_some();
        if self.strip_prefix && !below {
            let why = "there is no path prefix that could be stripped".to_owned();
            return Some(BadField { key: "strip_prefix", why });
        }
        let why = "a host has one sign-in, so not below a path prefix".to_owned();
        (self.sign_in && below).then_some(BadField { key: "sign_in", why })
    }
}

impl Judge {
    /// A route as it is kept: names relative, paths absolute.
    pub(crate) fn route(&self, typed: Route) -> Result<Route, BadField> {
        let bad = |key| move |why| BadField { key, why };
        if typed.hosts.len() > HOSTS_MAX {
            let why = format!("{} further host names, more than {HOSTS_MAX}", typed.hosts.len());
            return Err(BadField { key: "hosts", why });
        }
        let hosts = typed.hosts.iter().map(|host| self.pattern(host));
        let hosts = hosts.collect::<Result<Vec<_>, _>>().map_err(|why| bad("hosts")(why.to_string()))?;
        if let Some(path) = &typed.path_prefix {
            prefix(path).map_err(bad("path_prefix"))?;
        }
        typed.discord().map_or(Ok(()), Err)?;
        if let Some(group) = &typed.balance {
            balance(group).map_err(bad("balance"))?;
        }
        let ca = typed.client_ca.map(|path| self.path(&path)).transpose().map_err(bad("client_ca"))?;
        let ca = ca.map(|path| path.to_string_lossy().into_owned()); // it was text when it was judged
        callers(&typed.callers).map_err(bad("callers"))?;
        callers(&typed.internal_callers).map_err(bad("internal_callers"))?;
        let cors = origins(&typed.cors).map_err(bad("cors"))?;
        let max_body_bytes = typed.max_body_bytes.filter(|bytes| *bytes > 0);
        Ok(Route { hosts, max_body_bytes, client_ca: ca, cors, ..typed })
    }

    /// A host name, or what stands for all names below one.
    fn pattern(&self, typed: &str) -> Result<String, HostNameError> {
        let below = match typed.strip_prefix("*.") {
            Some(below) => below,
            None if typed == ANY => return Ok(ANY.to_owned()),
            None => return HostName::parse(typed, &self.zone).map(String::from),
        };
        if below.eq_ignore_ascii_case(self.zone.base()) {
            return Ok(ANY.to_owned());
        }
        HostName::parse(below, &self.zone).map(|name| format!("*.{name}"))
    }
}

/// Plain segments only: what could be read in two ways can't be told apart from another's.
fn prefix(path: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let segment = |text: &str| !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain);
    let segments = path.strip_prefix('/').map(|rest| rest.split('/'));
    if path.len() > PREFIX_MAX || !segments.is_some_and(|mut segments| segments.all(segment)) {
        let text = shown(path);
        return Err(format!(
            "path prefix {text} is not `/` and plain segments (A-Z a-z 0-9 - . _ ~), without a slash at its end, of at most {PREFIX_MAX} bytes"
        ));
    }
    if path == "/debug" || path.starts_with("/debug/") {
        return Err(format!("path prefix {} belongs to the platform itself", shown(path)));
    }
    Ok(())
}

fn balance(group: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if group.is_empty() || group.len() > BALANCE_MAX || !group.bytes().all(plain) {
        let text = shown(group);
        return Err(format!("group {text} is not 1 to {BALANCE_MAX} characters of A-Z a-z 0-9 _ -"));
    }
    Ok(())
}

fn callers(ids: &[String]) -> Result<(), String> {
    few(ids)?;
    ids.iter().try_for_each(|id| InstanceId::parse(id).map(drop).map_err(|error| error.to_string()))
}

/// Origins as browsers write them.
fn origins(typed: &[String]) -> Result<Vec<String>, String> {
    few(typed)?;
    typed.iter().map(|origin| self::origin(origin)).collect()
}

fn origin(typed: &str) -> Result<String, String> {
    let written = typed.to_ascii_lowercase();
    let (scheme, authority) = written.split_once("://").unwrap_or_default();
    let (host, digits) = authority.split_once(':').unwrap_or((authority, "443"));
    if !matches!(scheme, "https" | "http") || !is_name(host) || port(digits).is_none() {
        return Err(format!(
            "origin {} is not `https://` (or `http://`) and a host name, with its port where it has one",
            shown(typed)
        ));
    }
    Ok(written)
}

fn few(list: &[String]) -> Result<(), String> {
    if list.len() > LISTED_MAX {
        return Err(format!("{} are listed, more than {LISTED_MAX}", list.len()));
    }
    Ok(())
}

/// What an instance claims: host names and wildcards, all below the same path.
pub(crate) fn claims(instance: &Instance) -> (BTreeSet<String>, String) {
    let route = instance.route.as_ref();
    let further = route.map(|route| route.hosts.as_slice()).unwrap_or_default();
    let hosts = further.iter().cloned().chain([instance.host_name.to_string()]);
    (hosts.collect(), route.and_then(|route| route.path_prefix.clone()).unwrap_or_default())
}

/// Who issues the certificates that the clients of an instance need.
pub(crate) fn client_ca(instance: &Instance) -> Option<PathBuf> {
    instance.route.as_ref()?.client_ca.as_ref().map(PathBuf::from)
}

/// What stands between the values of an instance's route.
pub(crate) fn discord(instance: &Instance) -> Option<String> {
    instance.route.as_ref()?.discord().map(|bad| bad.to_string())
}

/// The group that an instance takes its requests with.
pub(crate) fn group(instance: &Instance) -> Option<&str> {
    instance.route.as_ref()?.balance.as_deref()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_chassis::names::Zone;
    use proptest::prelude::*;

    use super::*;

    fn judged(route: Route) -> Result<Route, &'static str> {
        let judge = Judge { zone: Zone::new("b.localhost", 8443), root: Some("/p".into()) };
        judge.route(route).map_err(|bad| bad.key)
    }

    fn hosts(hosts: &[&str]) -> Result<Vec<String>, &'static str> {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        judged(Route { hosts, ..Route::default() }).map(|route| route.hosts)
    }

    fn below(path: &str) -> Result<Option<String>, &'static str> {
        let path_prefix = Some(path.to_owned());
        judged(Route { path_prefix, ..Route::default() }).map(|route| route.path_prefix)
    }

    #[test]
    fn hosts_are_kept_relative_and_wildcards_stand_at_the_left() {
        assert_eq!(hosts(&["Shop", "www.b.localhost"]).unwrap(), ["shop", "www"]);
        assert_eq!(hosts(&["*.shop", "*.X.b.localhost:8443"]).unwrap(), ["*.shop", "*.x"]);
        assert_eq!(hosts(&["*", "*.b.localhost"]).unwrap(), ["*", "*"]);
        for bad in ["", "*.", "**", "*a", "a.*", "*.*", "*.*.a", "b.localhost", "internal", "a b"] {
            assert_eq!(hosts(&[bad]), Err("hosts"), "{bad}");
        }
        assert_eq!(hosts(&["a"; 33]), Err("hosts"));
    }

    #[test]
    fn a_prefix_is_plain_segments_and_none_of_the_platforms() {
        for good in ["/a", "/a/b", "/v1.2/~x_y-Z", "/debugger", "/..."] {
            assert_eq!(below(good).unwrap().as_deref(), Some(good));
        }
        for bad in ["", "/", "a", "/a/", "//a", "/a//b", "/./a", "/a/..", "/%61", "/a?b", "/a;b", "/ä"] {
            assert_eq!(below(bad), Err("path_prefix"), "{bad}");
        }
        assert_eq!((below("/debug"), below("/debug/x")), (Err("path_prefix"), Err("path_prefix")));
        assert_eq!(below(&format!("/{}", "a".repeat(256))), Err("path_prefix"));
        assert_eq!(judged(Route { strip_prefix: true, ..Route::default() }), Err("strip_prefix"));
    }

    #[test]
    fn groups_and_authorities_are_judged() {
        let group = |name: &str| judged(Route { balance: Some(name.into()), ..Route::default() });
        assert!(group("shop_1").is_ok());
        assert_eq!((group(""), group("a b")), (Err("balance"), Err("balance")));
        let ca = |path: &str| judged(Route { client_ca: Some(path.into()), ..Route::default() });
        assert_eq!(ca("certs/ca.pem").unwrap().client_ca.as_deref(), Some("/p/certs/ca.pem"));
        assert_eq!(ca(""), Err("client_ca"));
        let none = judged(Route { max_body_bytes: Some(0), ..Route::default() }).unwrap();
        assert_eq!(none, Route::default(), "no bytes at all is nobody's wish");
    }

    #[test]
    fn callers_are_instances_and_origins_are_what_browsers_send() {
        let ids = |id: &str| vec![id.to_owned()];
        assert!(judged(Route { callers: ids("shop-1"), ..Route::default() }).is_ok());
        for bad in ["", "*", "@provider", "a b", "../x"] {
            assert_eq!(judged(Route { callers: ids(bad), ..Route::default() }), Err("callers"), "{bad}");
            let route = Route { internal_callers: ids(bad), ..Route::default() };
            assert_eq!(judged(route), Err("internal_callers"), "{bad}");
        }
        let cors = |origin: &str| judged(Route { cors: ids(origin), ..Route::default() });
        assert_eq!(cors("https://Shop.example").unwrap().cors, ["https://shop.example"]);
        assert!(cors("http://localhost:5173").is_ok());
        for bad in [
            "",
            "*",
            "null",
            "shop.example",
            "https://",
            "https://*.a",
            "https://a/",
            "ftp://a",
            "https://a:0",
        ] {
            assert_eq!(cors(bad), Err("cors"), "{bad}");
        }
        let below = Some("/a".to_owned());
        assert_eq!(judged(Route { sign_in: true, path_prefix: below, ..Route::default() }), Err("sign_in"));
        assert_eq!(judged(Route { callers: vec!["a".into(); 65], ..Route::default() }), Err("callers"));
    }

    proptest! {
        #[test]
        fn what_was_accepted_once_is_accepted_unchanged(host in "[*.a-cA-C:0-9]{0,9}", path in "[/a.~%]{0,6}") {
            let typed = Route { hosts: vec![host], path_prefix: Some(path), ..Route::default() };
            if let Ok(once) = judged(typed) {
                prop_assert_eq!(judged(once.clone()), Ok(once));
            }
        }
    }
}
