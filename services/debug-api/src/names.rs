//! What a client may call its application: ids, names, host names, addresses. Pure.
//!
//! Invariant: what got through here is safe as a file name, a host name, a header value and a log field.

use std::fmt;

use nexushub_chassis::names::{HostName, HostNameError, Zone};
use serde::{Deserialize, Serialize};

use crate::{
    front_end::{BadFrontEnd, FrontEnds},
    promotion::Wish,
};

const MAX_APP_ID: usize = 64;
const MAX_DISPLAY_NAME: usize = 128;
const MAX_DB_NAME: usize = 128;
/// Characters of a host name that is made of an appId; a number may follow them.
const MAX_MADE: usize = 56;

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
    #[error("Invalid staticServiceUrl: {0}")]
    StaticUrl(BadFrontEnd),
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
    /// Those that the contract requires, but for the host name, which is made where it is missing.
    pub(crate) fn complete(&self) -> bool {
        [&self.app_id, &self.display_name, &self.db_name].into_iter().all(said)
    }

    /// Whether it calls the application so.
    pub(crate) fn is_of(&self, app_id: &AppId) -> bool {
        self.app_id.as_deref() == Some(app_id.as_str())
    }

    /// The same, with a host name made of the appId if it says none: the first of its kind that is free.
    pub(crate) fn with_host(mut self, is_taken: impl Fn(&str) -> bool) -> Self {
        if !said(&self.host_name) {
            let app_id = self.app_id.as_deref().unwrap_or_default();
            let mut names = (1_u32..).map(|number| made_host(app_id, number));
            self.host_name = names.find(|name| !is_taken(name));
        }
        self
    }

    pub(crate) fn judge(
        &self,
        zone: &Zone,
        reserved: &[String],
        front_ends: &FrontEnds,
    ) -> Result<Description, NameError> {
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
        if let Some(url) = &static_service_url {
            front_ends.port(url).map_err(NameError::StaticUrl)?;
        }
        let app_id = AppId::parse(&text(&self.app_id))?;
        Ok(Description { app_id, display_name, host_name, db_name, static_service_url, keep: self.keep })
    }
}

impl Description {
    /// How it is described once it is permanent: as it is wished, without the front-end server, and no longer below `debug`.
    pub(crate) fn permanent(
        &self,
        wish: Wish,
        zone: &Zone,
        reserved: &[String],
        front_ends: &FrontEnds,
    ) -> Result<Self, NameError> {
        let host = self.host_name.as_str();
        let or = |wished: Option<String>, own: &str| {
            wished.filter(|text| !text.is_empty()).or(Some(own.to_owned()))
        };
        let asked = Asked {
            app_id: or(wish.name, self.app_id.as_str()),
            display_name: or(wish.display_name, &self.display_name),
            host_name: or(wish.host_name, host.strip_suffix(".debug").unwrap_or(host)),
            db_name: Some(self.db_name.clone()),
            static_service_url: None,
            keep: true,
        };
        asked.judge(zone, reserved, front_ends)
    }
}

fn said(field: &Option<String>) -> bool {
    field.as_ref().is_some_and(|text| !text.is_empty())
}

/// The host name for an appId: `shop.debug` for `debug-shop`, as the contract's clients name theirs.
fn made_host(app_id: &str, number: u32) -> String {
    let label = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' };
    let name: String =
        app_id.strip_prefix("debug-").unwrap_or(app_id).chars().map(label).take(MAX_MADE).collect();
    let name = Some(name.trim_matches('-')).filter(|name| !name.is_empty()).unwrap_or("app");
    if number == 1 { format!("{name}.debug") } else { format!("{name}-{number}.debug") }
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
        let config = crate::config::Config::default();
        let zone = Zone::new("yesterday.localhost", 8443);
        let apps = nexushub_chassis::setup::AppPorts::default();
        let front_ends = FrontEnds::of(config.static_ports().unwrap(), Vec::new(), apps);
        serde_json::from_str::<Asked>(json).unwrap().judge(&zone, &config.reserved_hosts, &front_ends)
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
        for url in ["ftp://a", "localhost:5173", "http://other:5173", "http://localhost:80"] {
            assert!(matches!(with("staticServiceUrl", url), Err(NameError::StaticUrl(_))), "{url}");
        }
        assert_eq!(with("staticServiceUrl", "").unwrap().static_service_url, None);
        let url = "http://localhost:5173";
        assert_eq!(with("staticServiceUrl", url).unwrap().static_service_url.as_deref(), Some(url));
    }

    #[test]
    fn a_host_name_that_is_missing_is_made_of_the_app_id_and_is_free() {
        let made = |app_id: &str, taken: &[&str]| {
            let json = serde_json::json!({"appId": app_id, "displayName": "A", "dbName": "a.db"}).to_string();
            let asked = serde_json::from_str::<Asked>(&json).unwrap().with_host(|host| taken.contains(&host));
            self::asked(&serde_json::json!({"appId": "a", "displayName": "A", "dbName": "d", "hostName": asked.host_name}).to_string())
                .unwrap()
                .host_name
                .to_string()
        };
        assert_eq!(made("debug-My.app_1", &[]), "my-app-1.debug");
        assert_eq!(made("shop", &["shop.debug", "shop-2.debug"]), "shop-3.debug");
        for odd in ["_", "--", "debug-", "debug-_._"] {
            assert_eq!(made(odd, &[]), "app.debug", "{odd}");
        }
        assert_eq!(made(&"x".repeat(64), &[]).len(), MAX_MADE + ".debug".len());
        let said = serde_json::from_str::<Asked>(r#"{"appId":"a","hostName":"mine"}"#).unwrap();
        assert_eq!(
            said.with_host(|_| true).host_name.as_deref(),
            Some("mine"),
            "who says one gets that or none"
        );
    }

    #[test]
    fn absent_null_and_empty_are_all_missing() {
        for json in [
            "{}",
            r#"{"appId":"a","displayName":"A","hostName":"a"}"#,
            r#"{"appId":null,"displayName":"A","hostName":"a","dbName":"d"}"#,
            r#"{"appId":"","displayName":"A","hostName":"a","dbName":"d"}"#,
        ] {
            assert!(!serde_json::from_str::<Asked>(json).unwrap().complete(), "{json}");
        }
    }
}
