//! How long to wait before trying again what another daemon's absence made fail.

use std::time::Duration;

/// Doubling waits from 10 ms to 1 s: a daemon is usually back within the first few.
#[derive(Debug, Clone)]
pub struct Retry {
    next: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_secs(1);

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(Self::MOST);
        now
    }

    /// It worked: the next failure is tried again quickly.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_start_over_after_success() {
        let mut retry = Retry::default();
        let waits: Vec<u128> = (0..9).map(|_| retry.wait().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        retry.reset();
        assert_eq!(retry.wait().as_millis(), 10);
    }
}
