//! What a client may call its application: ids, names, host names, addresses. Pure.
//!
//! Invariant: what got through here is safe as a file name, a host name, a header value and a log field.

use std::fmt;

use nexushub_chassis::names::{HostName, HostNameError, HttpUrl, Zone};
use serde::{Deserialize, Serialize};

const MAX_APP_ID: usize = 64;
const MAX_DISPLAY_NAME: usize = 128;
const MAX_DB_NAME: usize = 128;

/// Why a name was refused; the message names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("Invalid appId: use 1 to {MAX_APP_ID} characters of A-Z a-z 0-9 . _ - and no leading dot")]
    AppId,
    #[error("Invalid displayName: use 1 to {MAX_DISPLAY_NAME} characters and no control characters")]
    DisplayName,
    #[error("Invalid dbName: use 1 to {MAX_DB_NAME} characters of A-Z a-z 0-9 . _ - and no leading dot")]
    DbName,
    #[error(
        "Invalid hostName: {0}; use labels of letters, digits and -, joined by dots, with or without the base domain .{1}"
    )]
    HostName(HostNameError, String),
    #[error("Host name {0} is reserved by the platform; choose another")]
    Reserved(String),
    #[error("Invalid staticServiceUrl: use http:// or https:// with a host, such as http://localhost:5173")]
    StaticUrl,
}

/// The client's name of an application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct AppId(String);

impl AppId {
    pub(crate) fn parse(text: &str) -> Result<Self, NameError> {
        if plain(text, MAX_APP_ID) { Ok(Self(text.to_owned())) } else { Err(NameError::AppId) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The body of a create call, as sent. Absent, null and empty are the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Asked {
    app_id: Option<String>,
    display_name: Option<String>,
    host_name: Option<String>,
    db_name: Option<String>,
    static_service_url: Option<String>,
    keep: bool,
}

/// An application as its developer describes it, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    pub(crate) app_id: AppId,
    pub(crate) display_name: String,
    pub(crate) host_name: HostName,
    pub(crate) db_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) static_service_url: Option<String>,
    /// Stays until it is deleted, however long nobody asks about it. The contract's clients don't say so; ours does.
    #[serde(default)]
    pub(crate) keep: bool,
}

impl Asked {
    /// The four that the contract requires.
    pub(crate) fn complete(&self) -> bool {
        [&self.app_id, &self.display_name, &self.host_name, &self.db_name]
            .iter()
            .all(|field| field.as_ref().is_some_and(|text| !text.is_empty()))
    }

    pub(crate) fn judge(&self, zone: &Zone, reserved: &[String]) -> Result<Description, NameError> {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let host_name = HostName::parse(&text(&self.host_name), zone).map_err(|why| match why {
            HostNameError::Reserved(name) => NameError::Reserved(name),
            why => NameError::HostName(why, zone.base().to_owned()),
        })?;
        if reserved.iter().any(|name| name.eq_ignore_ascii_case(host_name.as_str())) {
            return Err(NameError::Reserved(host_name.into()));
        }
        let (display_name, db_name) = (text(&self.display_name), text(&self.db_name));
        let length = display_name.chars().count();
        if display_name.trim().is_empty()
            || length > MAX_DISPLAY_NAME
            || display_name.chars().any(char::is_control)
        {
            return Err(NameError::DisplayName);
        }
        if !plain(&db_name, MAX_DB_NAME) {
            return Err(NameError::DbName);
        }
        let static_service_url = Some(text(&self.static_service_url)).filter(|url| !url.is_empty());
        if static_service_url.as_deref().is_some_and(|url| HttpUrl::parse(url).is_none()) {
            return Err(NameError::StaticUrl);
        }
        let app_id = AppId::parse(&text(&self.app_id))?;
        Ok(Description { app_id, display_name, host_name, db_name, static_service_url, keep: self.keep })
    }
}

impl Description {
    /// The port of a static service on this machine, 0 without one.
    pub(crate) fn debug_port(&self) -> u16 {
        let local = |url: &HttpUrl<'_>| !url.tls && ["localhost", "127.0.0.1"].contains(&url.host);
        let url = self.static_service_url.as_deref().and_then(HttpUrl::parse).filter(local);
        url.and_then(|url| url.port).unwrap_or(0)
    }
}

/// Letters, digits and `._-`, no leading dot: safe as one path component.
fn plain(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(json: &str) -> Result<Description, NameError> {
        let reserved = crate::config::Config::default().reserved_hosts;
        serde_json::from_str::<Asked>(json).unwrap().judge(&Zone::new("yesterday.localhost", 8443), &reserved)
    }

    #[test]
    fn an_app_id_is_safe_as_a_file_name() {
        for text in ["a", "debug-my.app_1", "A-Z", &"x".repeat(64)] {
            assert_eq!(AppId::parse(text).unwrap().as_str(), text);
        }
        for text in
            ["", ".", "..", ".a", "a/b", "debug-../../../pwn", "a\\b", "a b", "a\0", "ä", &"x".repeat(65)]
        {
            assert_eq!(AppId::parse(text), Err(NameError::AppId), "{text:?}");
        }
    }

    #[test]
    fn reserved_hosts_are_refused_in_every_spelling() {
        for name in ["login", "ADMIN", "internal.yesterday.localhost", "localhost:8443"] {
            let json = format!(r#"{{"appId":"a","displayName":"A","hostName":"{name}","dbName":"a.db"}}"#);
            assert!(matches!(asked(&json), Err(NameError::Reserved(_))), "{name}");
        }
    }

    #[test]
    fn a_description_is_judged_field_by_field() {
        let with = |field: &str, value: &str| {
            let mut json: serde_json::Value =
                serde_json::from_str(r#"{"appId":"a","displayName":"A","hostName":"a","dbName":"a.db"}"#)
                    .unwrap();
            json[field] = value.into();
            asked(&json.to_string())
        };
        assert_eq!(with("displayName", "a\u{7}"), Err(NameError::DisplayName));
        assert_eq!(with("displayName", " "), Err(NameError::DisplayName));
        assert_eq!(with("dbName", "../x"), Err(NameError::DbName));
        assert_eq!(with("appId", "../x"), Err(NameError::AppId));
        for url in [
            "ftp://a",
            "http://",
            "localhost:5173",
            "http://a b",
            "http://a:0",
            "http://a:x",
            "http://u@a",
            "javascript:x",
        ] {
            assert_eq!(with("staticServiceUrl", url), Err(NameError::StaticUrl), "{url}");
        }
        assert_eq!(with("staticServiceUrl", "").unwrap().static_service_url, None);
        for (url, port) in [
            ("http://localhost:5173", 5173),
            ("http://127.0.0.1:80/x", 80),
            ("https://localhost:5173", 0),
            ("http://other:5173", 0),
        ] {
            assert_eq!(with("staticServiceUrl", url).unwrap().debug_port(), port, "{url}");
        }
    }

    #[test]
    fn absent_null_and_empty_are_all_missing() {
        for json in [
            "{}",
            r#"{"appId":null,"displayName":"A","hostName":"a","dbName":"d"}"#,
            r#"{"appId":"","displayName":"A","hostName":"a","dbName":"d"}"#,
        ] {
            assert!(!serde_json::from_str::<Asked>(json).unwrap().complete(), "{json}");
        }
    }
}
