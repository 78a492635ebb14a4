//! What an instance's definition says of its requests besides its host name. Provider judged it; what comes from a kept file or
//! another version is taken as it is, and what can't be meant leads nowhere. Pure.

use std::path::PathBuf;

use nexushub_proto::provider::Route;
use serde::{Deserialize, Serialize};

/// Rules of one instance; the default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rules {
    /// Further host names and wildcards, relative to the base domain, lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hosts: Vec<String>,
    /// Only what is asked for at this path or below it; empty = everything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) prefix: String,
    /// The app is asked for the rest of the path.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) strip: bool,
    /// It shares its requests with those who say the same; empty = with nobody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) group: String,
    /// Bytes of one request's body, if it has a bound of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_bytes: Option<u64>,
    /// Who issues the certificates that its clients need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Instances that may ask for its `/api`, besides itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) callers: Vec<String>,
    /// Instances that may ask for its `/internal`, besides itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) internal_callers: Vec<String>,
    /// It is for users who are signed in.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sign_in: bool,
    /// Origins whose scripts may ask for it; none = what the app itself says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cors: Vec<String>,
}

impl Rules {
    /// As procmgr tells them.
    pub(crate) fn of(told: Route) -> Self {
        Self {
            hosts: told.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            prefix: told.path_prefix,
            strip: told.strip_prefix,
            group: told.balance,
            body_bytes: Some(told.max_body_bytes).filter(|bytes| *bytes > 0),
            client_ca: Some(told.client_ca).filter(|ca| !ca.is_empty()).map(PathBuf::from),
            callers: told.callers,
            internal_callers: told.internal_callers,
            sign_in: told.sign_in,
            cors: told.cors,
        }
    }

    /// Whether a path is meant; it ends where a segment does.
    pub(crate) fn fits(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path that the app is asked for.
    pub(crate) fn inner<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(self.prefix.as_str()) {
            Some("") if self.strip => "/",
            Some(rest) if self.strip => rest,
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(prefix: &str) -> Rules {
        Rules { prefix: prefix.into(), strip: true, ..Rules::default() }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does_and_is_stripped_only_where_that_is_asked_for() {
        for (path, inner) in
            [("/api", Some("/")), ("/api/", Some("/")), ("/api/a/b", Some("/a/b")), ("/api//x", Some("//x"))]
        {
            assert_eq!(below("/api").fits(path).then(|| below("/api").inner(path)), inner, "{path}");
            assert_eq!(Rules { strip: false, ..below("/api") }.inner(path), path);
        }
        for path in ["/", "/apis", "/ap", "/API", "/a/api", ""] {
            assert!(!below("/api").fits(path), "{path}");
        }
        assert!(below("").fits("/x") && below("").fits("") && Rules::default().fits("/"));
        assert_eq!(below("").inner("/x"), "/x");
    }
}
