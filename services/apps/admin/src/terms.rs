//! Who may ask for an application besides people, and what it may use: judged here as the provider judges it again, kept as one
//! text beside the application, and listed only where something is said. Pure.

use std::collections::BTreeSet;

use nexushub_applib::Refusal;
use serde::{Deserialize, Serialize};

use crate::names;

/// Most callers of either kind, and most origins.
const LISTED_MAX: usize = 16;
/// Bytes of an origin.
const ORIGIN_MAX: usize = 200;
/// Bytes of the terms of all applications together: a list of them has to be one that the provider reads.
pub(crate) const ALL_MAX: i64 = 3 << 20;

const KIB: u64 = 1 << 10;
/// What each limit may be, as `services/chassis/src/bounds.rs` has it, which an app can't import.
const MEMORY: (u64, u64) = (8 << 20, 1 << 40);
const CPU: (u64, u64) = (1, 102_400);
const PROCESSES: (u64, u64) = (4, 1 << 20);
const FILES: (u64, u64) = (16, 1 << 20);
const DISK: (u64, u64) = (64 << 10, 1 << 40);
const LOG: (u64, u64) = (256 << 10, 1 << 40);

/// Bounds on what it uses; none = the platform's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
}

impl Limits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Terms {
    /// Instances that may ask for its `/api`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// Instances that may ask for its `/internal`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub internal_callers: Vec<String>,
    /// Origins whose scripts may ask for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cors: Vec<String>,
    #[serde(skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// As somebody writes it; what is not said stays as it is, since clients of earlier generations know nothing of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Wished {
    pub callers: Option<Vec<String>>,
    pub internal_callers: Option<Vec<String>>,
    pub cors: Option<Vec<String>>,
    pub limits: Option<Limits>,
}

impl Wished {
    /// What it comes to.
    pub(crate) fn judged(&self, before: &Terms) -> Result<Terms, Refusal> {
        let list =
            |said: &Option<Vec<String>>, before: &[String], judge: fn(&str) -> Result<String, Refusal>| {
                said.as_ref().map_or_else(|| Ok(before.to_owned()), |said| listed(said, judge))
            };
        Ok(Terms {
            callers: list(&self.callers, &before.callers, caller)?,
            internal_callers: list(&self.internal_callers, &before.internal_callers, caller)?,
            cors: list(&self.cors, &before.cors, origin)?,
            limits: self.limits.map_or(Ok(before.limits), limits)?,
        })
    }
}

/// Each once, in order.
fn listed(said: &[String], judge: fn(&str) -> Result<String, Refusal>) -> Result<Vec<String>, Refusal> {
    let mut seen = BTreeSet::new();
    let judged = said.iter().map(|one| judge(one.trim())).collect::<Result<Vec<_>, _>>()?;
    let each: Vec<String> = judged.into_iter().filter(|one| seen.insert(one.clone())).collect();
    let few = each.len() <= LISTED_MAX;
    few.then_some(each).ok_or_else(|| {
        Refusal::bad(format!("there may be at most {LISTED_MAX} callers or origins of a kind"))
    })
}

fn caller(said: &str) -> Result<String, Refusal> {
    let why = || {
        Refusal::bad(format!("`{}` is neither an app's host name nor an instance's id", names::shown(said)))
    };
    names::instance_id(said).map_err(|_| why())
}

/// An origin as browsers write it.
fn origin(said: &str) -> Result<String, Refusal> {
    let written = said.to_ascii_lowercase();
    let (scheme, authority) = written.split_once("://").unwrap_or_default();
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let good = ["https", "http"].contains(&scheme)
        && host.split('.').all(names::is_label)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && written.len() <= ORIGIN_MAX;
    let why = || {
        let said = names::shown(said);
        Refusal::bad(format!(
            "`{said}` is no origin: `https://` (or `http://`), a host name, and its port where it has one"
        ))
    };
    good.then_some(written).ok_or_else(why)
}

fn limits(said: Limits) -> Result<Limits, Refusal> {
    let Limits { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes } = said;
    for (what, bound, (least, most)) in [
        ("memory", memory_bytes, MEMORY),
        ("data", data_bytes, DISK),
        ("/tmp", tmp_bytes, DISK),
        ("log", log_bytes, LOG),
    ] {
        if bound.is_some_and(|bound| !(least..=most).contains(&bound)) {
            let (least, most) = (size(least), size(most));
            return Err(Refusal::bad(format!("the bound on its {what} is not within {least} and {most}")));
        }
    }
    for (what, bound, (least, most)) in [
        ("processor time", cpu_percent, CPU),
        ("processes", processes, PROCESSES),
        ("open files", open_files, FILES),
    ] {
        if bound.is_some_and(|bound| !(least..=most).contains(&bound)) {
            return Err(Refusal::bad(format!("the bound on its {what} is not within {least} and {most}")));
        }
    }
    Ok(said)
}

/// Bytes, as people write them and as they are read again without a loss.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("TiB", KIB.pow(4)), ("GiB", KIB.pow(3)), ("MiB", KIB.pow(2)), ("KiB", KIB)];
    let whole = units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes} B"), |(name, unit)| format!("{} {name}", bytes / unit))
}

/// What somebody wrote for a number of bytes; MiB if they say no unit. None where nothing is written.
pub(crate) fn bytes(text: &str) -> Result<Option<u64>, Refusal> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "" | "m" | "mb" | "mib" => KIB.pow(2),
        "g" | "gb" | "gib" => KIB.pow(3),
        "t" | "tb" | "tib" => KIB.pow(4),
        _ => 0,
    };
    let bytes = number.parse::<u64>().ok().filter(|_| unit > 0).and_then(|number| number.checked_mul(unit));
    let why = || Refusal::bad(format!("`{}` is no size: a number, and KiB, MiB or GiB", names::shown(text)));
    if text.is_empty() { Ok(None) } else { bytes.map(Some).ok_or_else(why) }
}

/// What somebody wrote for a number. None where nothing is written.
pub(crate) fn number(text: &str) -> Result<Option<u64>, Refusal> {
    let text = text.trim();
    let why = |_| Refusal::bad(format!("`{}` is no number", names::shown(text)));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(why) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn judged(said: &Value) -> Result<Terms, Refusal> {
        let wished: Wished = serde_json::from_value(said.clone()).unwrap();
        wished.judged(&Terms::default())
    }

    #[test]
    fn what_is_said_replaces_and_what_is_not_stays() {
        let all = json!({ "callers": ["shop", " shop ", "b"], "internalCallers": ["c"], "cors": ["https://A.example:8443"],
            "limits": { "memoryBytes": 64 << 20, "cpuPercent": 50 } });
        let before = judged(&all).unwrap();
        assert_eq!(
            json!(before),
            json!({ "callers": ["shop", "b"], "internalCallers": ["c"], "cors": ["https://a.example:8443"],
                "limits": { "memoryBytes": 64 << 20, "cpuPercent": 50 } })
        );
        assert_eq!(Wished::default().judged(&before).unwrap(), before);
        let less = Wished { callers: Some(vec![]), limits: Some(Limits::default()), ..Wished::default() };
        let after = less.judged(&before).unwrap();
        assert_eq!((after.callers.len(), after.limits, &after.cors), (0, Limits::default(), &before.cors));
        assert_eq!(json!(Terms::default()), json!({}), "nothing is listed where nothing is said");
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let many: Vec<String> = (0..=LISTED_MAX).map(|number| number.to_string()).collect();
        for said in [
            json!({ "callers": ["@provider"] }),
            json!({ "callers": many }),
            json!({ "internalCallers": ["../x"] }),
            json!({ "cors": ["*"] }),
            json!({ "cors": ["null"] }),
            json!({ "cors": ["https://a/"] }),
            json!({ "cors": ["https://a:0"] }),
            json!({ "cors": ["https://a:+1"] }),
            json!({ "cors": ["ftp://a"] }),
            json!({ "cors": [format!("https://{}.b", "a.".repeat(100))] }),
            json!({ "limits": { "memoryBytes": MEMORY.0 - 1 } }),
            json!({ "limits": { "memoryBytes": MEMORY.1 + 1 } }),
            json!({ "limits": { "cpuPercent": 0 } }),
            json!({ "limits": { "processes": 3 } }),
            json!({ "limits": { "openFiles": 15 } }),
            json!({ "limits": { "dataBytes": 1 } }),
            json!({ "limits": { "tmpBytes": u64::MAX } }),
            json!({ "limits": { "logBytes": 65_536 } }),
        ] {
            assert!(judged(&said).is_err(), "{said}");
        }
        for said in [
            json!({ "callers": "shop" }),
            json!({ "limits": { "memory": 1 } }),
            json!({ "limits": { "processes": -1 } }),
        ] {
            assert!(serde_json::from_value::<Wished>(said.clone()).is_err(), "{said}");
        }
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for number in [0, 1, 1023, 65536, 8 << 20, (8 << 20) + 1, 3 << 30, 1 << 40] {
            assert_eq!(bytes(&size(number)).unwrap(), Some(number), "{}", size(number));
        }
        assert_eq!(
            (bytes(" 128 ").unwrap(), bytes("1g").unwrap(), bytes(" ").unwrap()),
            (Some(128 << 20), Some(1 << 30), None)
        );
        for bad in ["x", "-1", "1 pony", "99999999999999999999", "9999999999 TiB", "MiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((number("7").unwrap(), number("").unwrap(), number("x").is_err()), (Some(7), None, true));
    }
}
