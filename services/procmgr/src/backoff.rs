//! How long a failed instance waits for its next start: 2 s, doubled with each failure in a row, up to 15 s. A run that
//! lasted long enough to be called stable clears the account, and the restart after it happens at once.

use crate::clock::Ms;

/// The numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// The first wait.
    pub first_ms: Ms,
    /// The longest.
    pub max_ms: Ms,
    /// A run of this length clears the account.
    pub stable_ms: Ms,
}

/// Failures in a row of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next start, after a run of `ran_for`. `jitter` in 0..1 shortens it by up to a tenth, so that
    /// what failed together does not start together for ever.
    pub(crate) fn after_run(&mut self, ran_for: Ms, policy: &Policy, jitter: f64) -> Ms {
        if ran_for >= policy.stable_ms {
            self.failures = 0;
            return 0;
        }
        let doubled = policy.first_ms.saturating_mul(1 << self.failures.min(20)).min(policy.max_ms);
        self.failures = self.failures.saturating_add(1);
        let tenth = (doubled / 10).max(0);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        // a few seconds in milliseconds
        let cut = (tenth as f64 * jitter.clamp(0.0, 1.0)) as Ms;
        doubled - cut
    }

    /// Clears the account: what is started next is not what failed, or somebody asked for it.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { first_ms: 2_000, max_ms: 15_000, stable_ms: 60_000 };

    #[test]
    fn waits_double_from_two_to_fifteen_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<Ms> = (0..6).map(|_| backoff.after_run(200, &POLICY, 0.0)).collect();
        assert_eq!(waits, [2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
    }

    #[test]
    fn the_first_restart_after_a_stable_run_is_at_once_and_clears_the_account() {
        let mut backoff = Backoff::default();
        backoff.after_run(0, &POLICY, 0.0);
        backoff.after_run(0, &POLICY, 0.0);
        assert_eq!(backoff.after_run(60_000, &POLICY, 0.5), 0);
        assert_eq!(backoff.after_run(59_999, &POLICY, 0.0), 2_000);
    }

    #[test]
    fn jitter_only_shortens_and_by_no_more_than_a_tenth() {
        for jitter in [-1.0, 0.0, 0.3, 0.999, 7.0] {
            let wait = Backoff::default().after_run(0, &POLICY, jitter);
            assert!((1_800..=2_000).contains(&wait), "{wait}");
        }
    }

    #[test]
    fn a_thousand_failures_overflow_nothing() {
        let mut backoff = Backoff::default();
        let last = (0..1_000).map(|_| backoff.after_run(0, &POLICY, 0.0)).last();
        assert_eq!(last, Some(15_000));
    }
}
