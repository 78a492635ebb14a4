//! The two clocks of procmgr, read once for each event: the monotonic one for every decision, the wall clock only for
//! what people and other programs are shown. Pure code is handed a [`Now`] and never reads a clock itself.

use std::time::{Instant, SystemTime};

use nexushub_chassis::launch::clock::unix_ms;

/// Milliseconds on the monotonic clock since procmgr started. Negative for what began before.
pub(crate) type Ms = i64;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Decisions use this.
    pub mono: Ms,
    /// Milliseconds since the epoch, for show.
    pub unix: i64,
}

impl Now {
    /// The monotonic instant of a wall clock reading; never later than now, whatever the wall clock did.
    pub(crate) fn mono_of_past(&self, unix: i64) -> Ms {
        self.mono.saturating_sub(self.unix.saturating_sub(unix).max(0))
    }
}

/// The source of [`Now`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts counting.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Reads both clocks.
    pub(crate) fn now(&self) -> Now {
        Now {
            mono: i64::try_from(self.0.elapsed().as_millis()).unwrap_or(Ms::MAX),
            unix: unix_ms(SystemTime::now()),
        }
    }

    /// When a monotonic reading is reached, for timers.
    pub(crate) fn instant(&self, mono: Ms) -> Instant {
        self.0 + std::time::Duration::from_millis(u64::try_from(mono).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_wall_clock_reading_is_never_in_the_future() {
        let now = Now { mono: 1_000, unix: 50_000 };
        assert_eq!(now.mono_of_past(49_000), 0);
        assert_eq!(now.mono_of_past(99_000), 1_000);
    }
}
