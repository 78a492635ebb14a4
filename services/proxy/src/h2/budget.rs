//! How much of what only costs is taken from a client. Pure.

/// A stock that is spent from, and fills up again with time and with what is worth it.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    most: u32,
    per_second: u32,
    filled_ms: u64,
}

impl Budget {
    /// A full one.
    pub(super) fn new(most: u32, per_second: u32, now_ms: u64) -> Self {
        Self { left: most, most, per_second, filled_ms: now_ms }
    }

    /// Adds so many.
    pub(super) fn earn(&mut self, number: u32) {
        self.left = self.left.saturating_add(number).min(self.most);
    }

    /// Takes one, if there is one left.
    pub(super) fn spend(&mut self, now_ms: impl FnOnce() -> u64) -> bool {
        if self.left == 0 {
            self.fill(now_ms());
        }
        let spent = self.left.checked_sub(1);
        self.left = spent.unwrap_or(0);
        spent.is_some()
    }

    /// What time has brought since that was last looked at, which is only done when nothing is left.
    fn fill(&mut self, now_ms: u64) {
        let seconds = now_ms.saturating_sub(self.filled_ms) / 1000;
        if seconds > 0 {
            self.filled_ms = now_ms;
            self.earn(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(self.per_second));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_and_with_work() {
        let mut budget = Budget::new(3, 2, 10_000);
        let start = || 10_999;
        assert_eq!((0..9).filter(|_| budget.spend(start)).count(), 3);
        budget.earn(1);
        assert!(budget.spend(start) && !budget.spend(start));
        assert_eq!((0..9).filter(|_| budget.spend(|| 11_000)).count(), 2);
        assert_eq!((0..9).filter(|_| budget.spend(|| 11_999)).count(), 0);
    }

    #[test]
    fn no_more_is_saved_than_it_holds() {
        let mut budget = Budget::new(3, 1000, 0);
        budget.earn(7);
        assert_eq!((0..99).filter(|_| budget.spend(|| 0)).count(), 3);
    }
}
