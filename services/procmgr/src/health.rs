//! What a row of health checks means, and when the next one is due. Pure; `probe.rs` does the asking.
//!
//! One failure: still routed, flagged, asked again each second. As many in a row as the threshold: unhealthy. One success
//! clears the row. While an instance is starting, failures count for nothing and it is asked often, ever less often.

use crate::clock::Ms;

/// The health check of one instance: the platform's defaults with the instance's own overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// What is asked for.
    pub path: String,
    /// Between two checks of a healthy instance.
    pub interval_ms: Ms,
    /// Longest wait for an answer.
    pub timeout_ms: Ms,
    /// Failures in a row that make it unhealthy.
    pub failures: u32,
    /// Longest time from the start to the first answer.
    pub start_deadline_ms: Ms,
    /// Between two checks of a flagged instance.
    pub retry_ms: Ms,
    /// Between the first two checks of a starting instance.
    pub fast_first_ms: Ms,
    /// The longest pause between checks of a starting instance.
    pub fast_max_ms: Ms,
    /// It is asked in HTTP/2.
    pub h2c: bool,
}

impl Check {
    /// The pause after the `attempt`th failed check of a starting instance (from 0): 20 ms, growing by half, up to 1 s.
    pub(crate) fn starting_pause(&self, attempt: u32) -> Ms {
        let mut pause = self.fast_first_ms.max(1);
        for _ in 0..attempt.min(64) {
            pause = (pause + pause.div_euclid(2).max(1)).min(self.fast_max_ms);
        }
        pause.min(self.fast_max_ms.max(1))
    }
}

/// What the row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answers.
    Healthy,
    /// It failed, but not often enough.
    Flagged,
    /// It failed often enough to be replaced.
    Unhealthy,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row(u32);

impl Row {
    /// Adds one result. A threshold of 0 counts as 1.
    pub(crate) fn record(&mut self, answered: bool, threshold: u32) -> Verdict {
        if answered {
            self.0 = 0;
            return Verdict::Healthy;
        }
        self.0 = self.0.saturating_add(1);
        if self.0 >= threshold.max(1) { Verdict::Unhealthy } else { Verdict::Flagged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check {
            path: "/api/status".into(),
            interval_ms: 10_000,
            timeout_ms: 3_000,
            failures: 2,
            start_deadline_ms: 60_000,
            retry_ms: 1_000,
            fast_first_ms: 20,
            fast_max_ms: 1_000,
            h2c: false,
        }
    }

    #[test]
    fn one_failure_flags_and_the_second_in_a_row_is_unhealthy() {
        let mut row = Row::default();
        assert_eq!(row.record(false, 2), Verdict::Flagged);
        assert_eq!(row.record(true, 2), Verdict::Healthy);
        assert_eq!(row.record(false, 2), Verdict::Flagged);
        assert_eq!(row.record(false, 2), Verdict::Unhealthy);
        assert_eq!(Row::default().record(false, 0), Verdict::Unhealthy);
    }

    #[test]
    fn a_starting_instance_is_asked_after_20_ms_and_ever_less_often_up_to_a_second() {
        let pauses: Vec<Ms> = (0..12).map(|n| check().starting_pause(n)).collect();
        assert_eq!(&pauses[..4], [20, 30, 45, 67]);
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(check().starting_pause(u32::MAX), 1_000);
    }
}
