//! Facts in words and figures that people read: the same whether the page is made here or kept up to date by the script.

use nexushub_applib::time::{Unix, ago, lasted, parse};
use serde::Serialize;

use crate::platform::Instance;

/// What a page shows of an instance, and the script replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Live {
    pub state: String,
    /// The badge's looks.
    pub class: &'static str,
    pub reason: String,
    pub uptime: String,
    pub requests: String,
    pub memory: String,
    pub version: String,
    pub restarts: String,
}

impl Live {
    /// Of an instance at this time.
    pub(crate) fn of(instance: &Instance, now: Unix) -> Self {
        let running = instance.state == "running";
        let uptime =
            parse(&instance.since).filter(|_| running).map(|since| lasted(since, now)).unwrap_or_default();
        let errors =
            if instance.errors == 0 { String::new() } else { format!(", {} failed", count(instance.errors)) };
        Self {
            state: if instance.state.is_empty() { "unknown".into() } else { instance.state.clone() },
            class: class(&instance.state, instance.healthy),
            reason: instance.reason.clone(),
            uptime,
            requests: format!("{}{errors}", count(instance.requests)),
            memory: if instance.memory_bytes == 0 { String::new() } else { bytes(instance.memory_bytes) },
            version: short(&instance.release).to_owned(),
            restarts: count(instance.restarts),
        }
    }

    /// Of an instance that the platform does not know yet, or can't be asked about.
    pub(crate) fn unknown(away: bool) -> Self {
        let state = if away { "not known" } else { "about to appear" };
        Self { state: state.into(), class: "plain", ..Self::default() }
    }
}

/// The looks of a state.
pub(crate) fn class(state: &str, healthy: bool) -> &'static str {
    match state {
        "running" if healthy => "good",
        "running" | "unhealthy" => "warn",
        "failed" | "refused" => "bad",
        "starting" | "switching" | "stopping" | "draining" | "waiting" => "warn busy",
        _ => "plain",
    }
}

/// A version as people tell it from others: of a digest its beginning.
pub(crate) fn short(version: &str) -> &str {
    let digest = version.split('-').next().unwrap_or_default(); // some say after it which one of the same it is
    let is_digest = digest.len() >= 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &version[..12] } else { version }
}

/// `12 KiB`, `3.4 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut unit = "B";
    let mut tenths = bytes.saturating_mul(10);
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1024, next);
    }
    if unit == "B" || tenths >= 1000 {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// `1 234 567`, its spaces as narrow as they should be.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A time that another wrote, as how long ago.
pub(crate) fn when(text: &str, now: Unix) -> String {
    parse(text).map_or_else(|| text.to_owned(), |at| ago(at, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_such_as_people_read() {
        for (number, said) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_500_000, "1.4 MiB"), (300 << 20, "300 MiB")]
        {
            assert_eq!(bytes(number), said);
        }
        assert_eq!(
            (count(0), count(999), count(1_234_567)),
            ("0".into(), "999".into(), "1\u{202f}234\u{202f}567".into())
        );
        let digest = "0123456789abcdef".repeat(2);
        let again = format!("{digest}-1");
        let told = [digest.as_str(), &again, "v1.2", "shop-1"].map(short);
        assert_eq!(told, ["0123456789ab", "0123456789ab", "v1.2", "shop-1"]);
    }

    #[test]
    fn a_running_app_says_since_when_and_another_why_not() {
        let running = Instance {
            state: "running".into(),
            healthy: true,
            since: "2023-11-14T22:13:20Z".into(),
            requests: 1200,
            errors: 3,
            ..Instance::default()
        };
        let live = Live::of(&running, 1_700_000_000 + 7200);
        assert_eq!(
            (live.class, live.uptime.as_str(), live.requests.as_str()),
            ("good", "2 h", "1\u{202f}200, 3 failed")
        );
        let failed = Instance { state: "failed".into(), reason: "exit code 3".into(), ..running };
        let live = Live::of(&failed, 1_700_000_000);
        assert_eq!((live.class, live.uptime.as_str(), live.reason.as_str()), ("bad", "", "exit code 3"));
    }
}
