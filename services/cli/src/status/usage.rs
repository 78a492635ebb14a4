//! What an app uses, what it may use, and how it felt its bounds.

use nexushub_proto::procmgr;
use serde::{Serialize, Serializer, ser::Error};
use serde_json::{Map, Value, to_value};

use crate::table::bytes;

/// What its processes use, and may use; 0 = not counted, not bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Usage(procmgr::Usage);

impl From<&procmgr::Usage> for Usage {
    fn from(usage: &procmgr::Usage) -> Self {
        Self(*usage)
    }
}

impl Serialize for Usage {
    /// Its names are those of the contract, in the manner of the other fields of the answer.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = to_value(self.0).map_err(S::Error::custom)?;
        let fields = told.as_object().into_iter().flatten();
        let named: Map<String, Value> = fields.map(|(name, figure)| (snake(name), figure.clone())).collect();
        named.serialize(serializer)
    }
}

/// `memoryBytes` as `memory_bytes`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

impl Usage {
    /// For people, a line for each that is counted or bounded.
    pub(super) fn lines(&self) -> Vec<String> {
        let of = |used: String, bound: Option<String>| match bound {
            Some(bound) => format!("{used} of {bound}"),
            None => used,
        };
        let bound = |limit: u64, told: fn(u64) -> String| (limit > 0).then(|| told(limit));
        let mut memory = of(bytes(self.0.memory_bytes), bound(self.0.memory_limit_bytes, bytes));
        if self.0.memory_peak_bytes > 0 {
            memory.push_str(&format!(", at most {} so far", bytes(self.0.memory_peak_bytes)));
        }
        let mut processor = format!("{} used", seconds(self.0.cpu_usec));
        if self.0.cpu_limit_percent > 0 {
            let (percent, waited) = (self.0.cpu_limit_percent, seconds(self.0.throttled_usec));
            processor.push_str(&format!(", bound to {percent} % of a core, which held it back for {waited}"));
        }
        let mut processes =
            of(self.0.processes.to_string(), bound(self.0.processes_limit.into(), |most| most.to_string()));
        if self.0.refused_processes > 0 {
            processes.push_str(&format!(", {} times refused one more", self.0.refused_processes));
        }
        let data = of(bytes(self.0.data_bytes), bound(self.0.data_limit_bytes, bytes));
        let log = of(bytes(self.0.log_bytes), bound(self.0.log_limit_bytes, bytes));
        let all = [
            ("memory", memory, self.0.memory_bytes | self.0.memory_limit_bytes),
            ("processor", processor, self.0.cpu_usec | u64::from(self.0.cpu_limit_percent)),
            ("processes", processes, self.0.processes | u64::from(self.0.processes_limit)),
            ("data", data, self.0.data_bytes | self.0.data_limit_bytes),
            ("log", log, self.0.log_bytes),
        ];
        let told = all.into_iter().filter(|(.., figures)| *figures > 0);
        told.map(|(what, figure, _)| format!("{what:<9}  {figure}")).collect()
    }

    /// What its log takes of its bound, in a word for a table; where there is no bound, what it takes.
    pub(super) fn log(&self) -> Option<String> {
        let (takes, bound) = (self.0.log_bytes, self.0.log_limit_bytes);
        (takes > 0).then(|| match takes.saturating_mul(100).checked_div(bound) {
            Some(percent) => format!("{percent} %"),
            None => bytes(takes),
        })
    }

    /// What of it people should know who did not ask.
    pub(super) fn remarks(&self) -> impl Iterator<Item = String> {
        let yields = self
            .0
            .yields
            .then(|| "it keeps a processor busy, and yields to whoever else wants one".to_owned());
        yields.into_iter().chain(self.killed())
    }

    fn killed(&self) -> Option<String> {
        let bound = match self.0.memory_limit_bytes {
            0 => String::new(),
            limit => format!(" of {}", bytes(limit)),
        };
        let count = match self.0.oom_kills {
            0 => return None,
            1 => "1 process of it was killed".to_owned(),
            count => format!("{count} processes of it were killed"),
        };
        Some(format!("{count} at its bound on memory{bound}"))
    }
}

fn seconds(usec: u64) -> String {
    format!("{}.{} s", usec / 1_000_000, usec / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_told_beside_its_bound_and_what_nobody_counts_is_not() {
        let usage = Usage(procmgr::Usage {
            memory_bytes: 12 << 20,
            memory_peak_bytes: 50 << 20,
            memory_limit_bytes: 64 << 20,
            cpu_usec: 1_250_000,
            cpu_limit_percent: 10,
            throttled_usec: 3_400_000,
            processes: 3,
            processes_limit: 3,
            refused_processes: 9,
            oom_kills: 2,
            log_bytes: 3 << 20,
            log_limit_bytes: 16 << 20,
            ..procmgr::Usage::default()
        });
        let expected = [
            "memory     12.0 MiB of 64.0 MiB, at most 50.0 MiB so far",
            "processor  1.2 s used, bound to 10 % of a core, which held it back for 3.4 s",
            "processes  3 of 3, 9 times refused one more",
            "log        3.0 MiB of 16.0 MiB",
        ];
        assert_eq!(usage.lines(), expected);
        let remark = "2 processes of it were killed at its bound on memory of 64.0 MiB";
        let unbound = procmgr::Usage { log_limit_bytes: 0, ..usage.0 };
        assert_eq!(
            (usage.log().as_deref(), Usage(unbound).log().as_deref()),
            (Some("18 %"), Some("3.0 MiB"))
        );
        assert_eq!(Usage::default().log(), None);
        assert_eq!(usage.remarks().collect::<Vec<_>>(), [remark]);
        let busy = Usage(procmgr::Usage { yields: true, ..usage.0 });
        let told = "it keeps a processor busy, and yields to whoever else wants one";
        assert_eq!(busy.remarks().collect::<Vec<_>>(), [told, remark]);
        assert_eq!((Usage::default().lines().len(), Usage::default().remarks().count()), (0, 0));
    }
}
