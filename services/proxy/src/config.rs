//! The `[proxy]` table of the configuration file: every key with its default and what it bounds.
//! Durations are integers with their unit in the key; relative paths resolve against the project root.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    address::{Census, Rates},
    door, h1, h2,
    shares::Shares,
    workers,
};

/// How the proxy listens, what it bounds and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate chain that clients see, PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM, readable by its owner only.
    pub key: PathBuf,
    /// Further certificates with their keys, chosen by the name that a client asks for.
    pub pair: Vec<PairFiles>,
    /// Whether `/api/*` of every app needs a token: an access token for it, its own secret, or that of an instance that it names in
    /// `callers`. Else only of the apps that say so; `/internal/*` always does, and `/public/*` never.
    pub require_login: bool,
    /// Whether programs on this machine may ask `/debug/` without a token. Whoever may start one may then run anything as an app.
    pub debug_without_token: bool,
    /// Whether requests write lines to the log. What the proxy itself has to tell is written in any case.
    pub access_log: bool,
    /// Of so many requests that went well one is written; those that did not are all.
    pub access_log_every: u32,
    /// How long browsers shall ask for these host names by HTTPS only (Strict-Transport-Security), in seconds; 0 = nothing is
    /// said. An app's own word goes before.
    pub hsts_seconds: u32,
    /// Threads that converse with clients; 0 = one for each core, up to 16.
    pub workers: u32,
    /// Connections open at once, upgraded ones included. One more takes the place of that which has been without a request for longest,
    /// of those of the client that has most; where none is without one, it is closed as soon as it is accepted.
    pub max_connections: u32,
    /// Of them, connections of one client: an IPv4 address or a /64 network of IPv6; 0 = seven eighths, so that nobody alone shuts
    /// out all others. A trusted proxy brings those of many, and isn't bounded.
    pub address_connections: u32,
    /// Requests a second of one client; more than that and its burst are answered 429. 0 = no bound.
    pub address_requests_per_second: u32,
    /// Requests that one client may send at once before its rate counts.
    pub address_burst: u32,
    /// What one client may post to the login app a minute, passwords above all; more is answered 429. 0 = no bound.
    pub address_logins_per_minute: u32,
    /// Addresses of proxies before this one, whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Addresses whose connections begin with the PROXY protocol, version 1 or 2; no other connection may.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Connections out of all boxes open at once, in a count of their own; one more is closed as soon as it is accepted.
    pub inward_connections: u32,
    /// The same of one app's box.
    pub inward_connections_per_app: u32,
    /// Requests at once out of one app's box; one more is answered 503.
    pub inward_requests_per_app: u32,
    /// Header fields of one request; one more is answered 431.
    pub max_headers: u32,
    /// Bytes of one request's header section, its first line included; more is answered 431. Of an app's answer twice as many.
    pub max_header_bytes: u32,
    /// Bytes of one request's target; more is answered 414.
    pub max_target_bytes: u32,
    /// Bytes of one request's body; more is answered 413. 0 = no bound.
    pub max_body_bytes: u64,
    /// Requests at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Bytes of bodies that clients of HTTP/2 may together send ahead of what apps take, beside 64 KiB of each connection: who sends
    /// more than a few borrows 960 KiB until its connection ends, of one address as much as it leaves free.
    pub h2_ahead_bytes: u64,
    /// Streams that one HTTP/2 connection may reset a second, beside twice `h2_streams` at once: Rapid Reset (CVE-2023-44487).
    /// 0 = as many as `h2_streams`.
    pub h2_resets_per_second: u32,
    /// Streams that one HTTP/2 connection, and all of one client together, may make the proxy reset or refuse for their heads, a
    /// second, beside 100 at once: MadeYouReset (CVE-2025-8671).
    pub h2_errors_per_second: u32,
    /// Frames that ask for nothing, a second of one HTTP/2 connection, beside 10,000 at once: floods of PING, SETTINGS, empty DATA,
    /// PRIORITY, WINDOW_UPDATE, and frames that are late or unknown.
    pub h2_idle_frames_per_second: u32,
    /// Time for a TLS handshake.
    pub tls_handshake_ms: u64,
    /// Time from the first byte of a request's header section to its last, and from the handshake to the first request.
    pub header_ms: u64,
    /// How long a client's connection may stay open without a request.
    pub idle_ms: u64,
    /// How long a client may send nothing in the middle of a request body.
    pub body_idle_ms: u64,
    /// How long a client may take nothing of an answer.
    pub taking_ms: u64,
    /// Time for a whole request, from its head to the end of its answer, upgraded connections excepted; 0 = no limit.
    pub whole_ms: u64,
    /// Time for connecting to an app.
    pub connect_ms: u64,
    /// Time from the end of a request to the first byte of the app's answer. A stream that has begun has no limit.
    pub first_byte_ms: u64,
    /// The same for debug-api, whose installs answer once the app is up.
    pub debug_first_byte_ms: u64,
    /// Requests at once to one app; further ones wait up to `hold_ms`.
    pub backend_requests: u32,
    /// Idle connections kept to one app.
    pub backend_idle_connections: u32,
    /// How long an idle connection to an app is kept; below the keep-alive limits usual in app servers.
    pub backend_idle_ms: u64,
    /// How long a request waits for an app that is starting.
    pub hold_ms: u64,
    /// How long a request waits for the end of its app's pause.
    pub pause_ms: u64,
    /// Requests that wait for one app at once while it is starting, and as many again out of boxes; one more is answered 503.
    pub hold_requests: u32,
    /// Bytes that those of all apps may come to, and as many again out of boxes: of each its head, and of its body as much as may come
    /// before the app takes it, whether it has come or not. One app may have as much of it as it leaves free. What doesn't fit is
    /// answered 503.
    pub hold_bytes: u64,
    /// How long a request whose app refused the connection waits for news about that app.
    pub switch_ms: u64,
    /// How long the other direction of an upgraded connection stays open after one side has closed.
    pub upgrade_linger_ms: u64,
    /// How long a draining proxy waits for a request that may be on its way on a quiet HTTP/1.1 connection.
    pub drain_idle_ms: u64,
    /// How long open requests and upgraded connections may go on once the proxy was told to stop.
    pub drain_ms: u64,
}

/// The files of one more certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairFiles {
    /// Its chain, PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM, readable by its owner only.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            certificate: PathBuf::from("dist/certs/server.crt"),
            key: PathBuf::from("dist/certs/server.key"),
            pair: Vec::new(),
            require_login: true,
            debug_without_token: false,
            access_log: true,
            access_log_every: 1,
            hsts_seconds: 0,
            workers: 0,
            max_connections: 4096,
            address_connections: 0,
            address_requests_per_second: 0,
            address_burst: 100,
            address_logins_per_minute: 60,
            trusted_proxies: Vec::new(),
            proxy_protocol_from: Vec::new(),
            inward_connections: 1024,
            inward_connections_per_app: 64,
            inward_requests_per_app: 128,
            max_headers: 100,
            max_header_bytes: 32_768,
            max_target_bytes: 8_192,
            max_body_bytes: 0,
            h2_streams: 128,
            h2_ahead_bytes: 67_108_864,
            h2_resets_per_second: 0,
            h2_errors_per_second: 10,
            h2_idle_frames_per_second: 200,
            tls_handshake_ms: 10_000,
            header_ms: 10_000,
            idle_ms: 60_000,
            body_idle_ms: 60_000,
            taking_ms: 60_000,
            whole_ms: 0,
            connect_ms: 3_000,
            first_byte_ms: 60_000,
            debug_first_byte_ms: 300_000,
            backend_requests: 1024,
            backend_idle_connections: 64,
            backend_idle_ms: 4_000,
            hold_ms: 5_000,
            pause_ms: 30_000,
            hold_requests: 1024,
            hold_bytes: 268_435_456,
            switch_ms: 1_000,
            upgrade_linger_ms: 10_000,
            drain_idle_ms: 1_000,
            drain_ms: 30_000,
        }
    }
}

/// A key whose value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[proxy] {key} is {value}, but must be between {least} and {most}")]
pub struct OutOfRange {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// The least value allowed.
    pub least: u64,
    /// The greatest value allowed.
    pub most: u64,
}

/// A day: no deadline of the proxy is longer.
const DAY_MS: u64 = 86_400_000;

impl Config {
    /// Refuses values that would make the proxy useless or unbounded.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let ranges = [
            ("access_log_every", u64::from(self.access_log_every), 1, 1_000_000),
            ("hsts_seconds", u64::from(self.hsts_seconds), 0, 100_000_000),
            ("workers", u64::from(self.workers), 0, 256),
            ("max_connections", u64::from(self.max_connections), 1, 1_000_000),
            ("address_connections", u64::from(self.address_connections), 0, 1_000_000),
            ("address_requests_per_second", u64::from(self.address_requests_per_second), 0, 1_000_000),
            ("address_burst", u64::from(self.address_burst), 1, 1_000_000),
            ("address_logins_per_minute", u64::from(self.address_logins_per_minute), 0, 1_000_000),
            ("inward_connections", u64::from(self.inward_connections), 1, 1_000_000),
            ("inward_connections_per_app", u64::from(self.inward_connections_per_app), 1, 100_000),
            ("inward_requests_per_app", u64::from(self.inward_requests_per_app), 1, 100_000),
            ("max_headers", u64::from(self.max_headers), 16, 10_000),
            ("max_header_bytes", u64::from(self.max_header_bytes), 8_192, 1_048_576),
            ("max_target_bytes", u64::from(self.max_target_bytes), 1_024, 65_534),
            ("h2_streams", u64::from(self.h2_streams), 1, 10_000),
            ("h2_ahead_bytes", self.h2_ahead_bytes, 0, 1 << 40),
            ("h2_resets_per_second", u64::from(self.h2_resets_per_second), 0, 100_000),
            ("h2_errors_per_second", u64::from(self.h2_errors_per_second), 1, 100_000),
            ("h2_idle_frames_per_second", u64::from(self.h2_idle_frames_per_second), 1, 100_000),
            ("tls_handshake_ms", self.tls_handshake_ms, 1, DAY_MS),
            ("header_ms", self.header_ms, 1, DAY_MS),
            ("idle_ms", self.idle_ms, 1, DAY_MS),
            ("body_idle_ms", self.body_idle_ms, 1, DAY_MS),
            ("taking_ms", self.taking_ms, 1, DAY_MS),
            ("whole_ms", self.whole_ms, 0, DAY_MS),
            ("connect_ms", self.connect_ms, 1, DAY_MS),
            ("first_byte_ms", self.first_byte_ms, 1, DAY_MS),
            ("debug_first_byte_ms", self.debug_first_byte_ms, 1, DAY_MS),
            ("backend_requests", u64::from(self.backend_requests), 1, 1_000_000),
            ("backend_idle_connections", u64::from(self.backend_idle_connections), 0, 100_000),
            ("backend_idle_ms", self.backend_idle_ms, 1, DAY_MS),
            ("pause_ms", self.pause_ms, 0, DAY_MS),
            ("hold_ms", self.hold_ms, 0, DAY_MS),
            ("hold_requests", u64::from(self.hold_requests), 0, 1_000_000),
            ("hold_bytes", self.hold_bytes, 0, 1 << 40),
            ("switch_ms", self.switch_ms, 0, DAY_MS),
            ("upgrade_linger_ms", self.upgrade_linger_ms, 0, DAY_MS),
            ("drain_idle_ms", self.drain_idle_ms, 0, DAY_MS),
            ("drain_ms", self.drain_ms, 0, DAY_MS),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(OutOfRange { key, value, least, most });
            }
        }
        Ok(())
    }

    /// What the pools of connections to apps are bounded by.
    pub(crate) fn pool_limits(&self) -> crate::pool::Limits {
        crate::pool::Limits {
            requests: self.backend_requests as usize,
            idle: self.backend_idle_connections as usize,
            idle_age: Duration::from_millis(self.backend_idle_ms),
            connect: Duration::from_millis(self.connect_ms),
            wait: Duration::from_millis(self.hold_ms),
            head: h1::Limits { head_bytes: 2 * self.max_header_bytes as usize, ..self.head_limits() },
            workers: workers::number(self.workers),
        }
    }

    /// What one HTTP/2 connection may cost each second.
    pub(crate) fn paces(&self) -> h2::Paces {
        h2::Paces {
            idle: self.h2_idle_frames_per_second,
            errors: self.h2_errors_per_second,
            resets: if self.h2_resets_per_second == 0 { self.h2_streams } else { self.h2_resets_per_second },
        }
    }

    /// Where requests wait, by app.
    pub(crate) fn waiting(&self) -> Shares<String> {
        Shares::new(self.hold_requests, self.hold_bytes)
    }

    /// What clients of HTTP/2 may borrow.
    pub(crate) fn ahead(&self) -> h2::Pool {
        Shares::new(u32::MAX, self.h2_ahead_bytes)
    }

    /// Connections that one client may have.
    fn share_of_one(&self) -> u32 {
        match self.address_connections {
            0 => self.max_connections - self.max_connections / 8,
            most => most,
        }
    }

    /// What bounds the platform's own door.
    pub(crate) fn outer_bounds(&self) -> door::Outer {
        let rate = self.address_requests_per_second;
        door::Outer {
            connections: self.max_connections as usize,
            census: Some(Census::new(self.share_of_one())),
            rates: (rate > 0).then(|| Rates::new(rate, self.address_burst)),
            errors: Some(Rates::new(self.h2_errors_per_second, h2::ERRORS)),
        }
    }

    /// How fast each client may post to the login app, if that is bounded.
    pub(crate) fn logins(&self) -> Option<Rates> {
        let number = self.address_logins_per_minute;
        (number > 0).then(|| Rates::per_minute(number))
    }

    /// What the heads of requests are bounded by.
    pub(crate) fn head_limits(&self) -> h1::Limits {
        h1::Limits {
            head_bytes: self.max_header_bytes as usize,
            fields: self.max_headers as usize,
            target_bytes: self.max_target_bytes as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn an_empty_table_means_the_defaults() {
        let read: Config = serde_json::from_str("{}").expect("every key has a default");
        assert_eq!(read, Config::default());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"max_conections": 5}"#).is_err());
    }

    #[test]
    fn a_connection_resets_as_many_streams_as_it_may_have_open_unless_it_is_said_otherwise() {
        let resets = |h2_resets_per_second| {
            Config { h2_streams: 1_000, h2_resets_per_second, ..Config::default() }.paces().resets
        };
        assert_eq!([0, 7].map(resets), [1_000, 7]);
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        let config = Config { max_connections: 0, ..Config::default() };
        let error = config.validate().expect_err("no connection at all is no proxy");
        assert_eq!(error.key, "max_connections");
        assert!(error.to_string().contains("max_connections is 0"), "{error}");
    }
}
