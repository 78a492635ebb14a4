//! What an app uses, what it may use, and how it felt its bounds.

use nexushub_proto::procmgr;
use serde::Serialize;

use crate::table::bytes;

/// What its processes use, and may use; 0 = not counted, not bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    memory_bytes: u64,
    memory_peak_bytes: u64,
    memory_limit_bytes: u64,
    cpu_usec: u64,
    cpu_limit_percent: u32,
    /// How long they had to wait for their bound.
    throttled_usec: u64,
    processes: u64,
    processes_limit: u32,
    /// Those of them that were killed at the bound on memory.
    oom_kills: u64,
    data_bytes: u64,
    data_limit_bytes: u64,
}

impl From<&procmgr::Usage> for Usage {
    fn from(usage: &procmgr::Usage) -> Self {
        Self {
            memory_bytes: usage.memory_bytes,
            memory_peak_bytes: usage.memory_peak_bytes,
            memory_limit_bytes: usage.memory_limit_bytes,
            cpu_usec: usage.cpu_usec,
            cpu_limit_percent: usage.cpu_limit_percent,
            throttled_usec: usage.throttled_usec,
            processes: usage.processes,
            processes_limit: usage.processes_limit,
            oom_kills: usage.oom_kills,
            data_bytes: usage.data_bytes,
            data_limit_bytes: usage.data_limit_bytes,
        }
    }
}

impl Usage {
    /// For people, a line for each that is counted or bounded.
    pub(super) fn lines(&self) -> Vec<String> {
        let of = |used: String, bound: Option<String>| match bound {
            Some(bound) => format!("{used} of {bound}"),
            None => used,
        };
        let bound = |limit: u64, told: fn(u64) -> String| (limit > 0).then(|| told(limit));
        let mut memory = of(bytes(self.memory_bytes), bound(self.memory_limit_bytes, bytes));
        if self.memory_peak_bytes > 0 {
            memory.push_str(&format!(", at most {} so far", bytes(self.memory_peak_bytes)));
        }
        let mut processor = format!("{} used", seconds(self.cpu_usec));
        if self.cpu_limit_percent > 0 {
            let (percent, waited) = (self.cpu_limit_percent, seconds(self.throttled_usec));
            processor.push_str(&format!(", bound to {percent} % of a core, which held it back for {waited}"));
        }
        let processes =
            of(self.processes.to_string(), bound(self.processes_limit.into(), |most| most.to_string()));
        let data = of(bytes(self.data_bytes), bound(self.data_limit_bytes, bytes));
        let all = [
            ("memory", memory, self.memory_bytes + self.memory_limit_bytes),
            ("processor", processor, self.cpu_usec + u64::from(self.cpu_limit_percent)),
            ("processes", processes, self.processes + u64::from(self.processes_limit)),
            ("data", data, self.data_bytes + self.data_limit_bytes),
        ];
        let told = all.into_iter().filter(|(.., figures)| *figures > 0);
        told.map(|(what, figure, _)| format!("{what:<9}  {figure}")).collect()
    }

    /// What of it people should know who did not ask.
    pub(super) fn remark(&self) -> Option<String> {
        let bound = match self.memory_limit_bytes {
            0 => String::new(),
            limit => format!(" of {}", bytes(limit)),
        };
        let count = match self.oom_kills {
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
        let usage = Usage {
            memory_bytes: 12 << 20,
            memory_peak_bytes: 50 << 20,
            memory_limit_bytes: 64 << 20,
            cpu_usec: 1_250_000,
            cpu_limit_percent: 10,
            throttled_usec: 3_400_000,
            processes: 3,
            oom_kills: 2,
            ..Usage::default()
        };
        let expected = [
            "memory     12.0 MiB of 64.0 MiB, at most 50.0 MiB so far",
            "processor  1.2 s used, bound to 10 % of a core, which held it back for 3.4 s",
            "processes  3",
        ];
        assert_eq!(usage.lines(), expected);
        let remark = "2 processes of it were killed at its bound on memory of 64.0 MiB";
        assert_eq!(usage.remark().as_deref(), Some(remark));
        assert_eq!((Usage::default().lines().len(), Usage::default().remark()), (0, None));
    }
}
