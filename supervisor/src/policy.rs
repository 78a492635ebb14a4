//! When to restart, and when a daemon counts as hung. Pure: time and chance come in as arguments.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::config::{Settings, ms};

/// Time since some moment before this boot (`CLOCK_MONOTONIC`): every process of the machine reads the same.
pub(crate) type Moment = Duration;

pub(crate) fn now() -> Moment {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// What a decision depends on besides the state that it is about.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub(crate) now: Moment,
    /// Evenly distributed.
    pub(crate) chance: u32,
    pub(crate) settings: &'a Settings,
}

impl Settings {
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn { now: now(), chance: getrandom::u32().unwrap_or(u32::MAX), settings: self }
    }
}

impl Turn<'_> {
    /// Until when a daemon that is told to stop now may take.
    pub(crate) fn limit(&self, daemon: &str) -> Moment {
        self.now + self.settings.stop_limit(daemon)
    }
}

/// A daemon's crashes.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// How many in all, ...
    pub(crate) total: u32,
    /// ... in a row without a stable run between them, ...
    streak: u32,
    /// ... and when, lately.
    recent: Vec<Moment>,
    /// Crashed too often: loud, and retried at the slowest pace, until a run is stable again.
    pub(crate) failed: bool,
}

impl Restarts {
    /// Notes a crash after a run of that length; how long to wait before the next start. Chance spreads the delay over its
    /// upper half, so that daemons that crash together don't return together for ever.
    pub(crate) fn crashed(&mut self, ran: Duration, turn: &Turn<'_>) -> Duration {
        let (now, settings) = (turn.now, turn.settings);
        if ran >= ms(settings.stable_ms) {
            self.forgive();
        }
        self.recent.retain(|crash| now.saturating_sub(*crash) < ms(settings.burst_ms));
        self.recent.push(now);
        self.failed |= self.recent.len() >= settings.burst;
        (self.total, self.streak) = (self.total.saturating_add(1), self.streak.saturating_add(1));
        let longest = ms(settings.backoff_max_ms);
        let full = match self.streak {
            _ if self.failed => longest,
            1 => return Duration::ZERO,
            streak => ms(settings.backoff_min_ms).saturating_mul(1 << (streak - 2).min(30)).min(longest),
        };
        full / 2 + (full / 2).mul_f64(f64::from(turn.chance) / f64::from(u32::MAX))
    }

    /// Begins anew, as after a stable run.
    pub(crate) fn forgive(&mut self) {
        *self = Self { total: self.total, ..Self::default() };
    }
}

/// When to look for hung daemons next. They ping at multiples of half the watchdog's time; the look comes three quarters of
/// that half later, so that all of them wake the machine together and every ping of a live one has arrived.
pub(crate) fn next_round(now: Moment, watchdog: Duration) -> Moment {
    let (half, offset) = (watchdog / 2, watchdog * 3 / 8);
    now.checked_sub(offset).map_or(offset, |past| {
        let into = u64::try_from(past.as_nanos() % half.as_nanos()).unwrap_or(0);
        now + half - Duration::from_nanos(into)
    })
}

/// Whether a daemon whose last sign of life is that old is hung: it missed a ping, and some.
pub(crate) fn hung(now: Moment, sign: Moment, watchdog: Duration) -> bool {
    now.saturating_sub(sign) > watchdog * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_restart_is_at_once_and_the_delays_then_double_up_to_the_longest() {
        let (mut restarts, settings) = (Restarts::default(), Settings { burst: 99, ..Settings::default() });
        let turn = Turn { now: SECOND, chance: u32::MAX, settings: &settings };
        let mut crash = |ran| restarts.crashed(ran, &turn).as_millis();
        let delays: Vec<_> = (0..11).map(|_| crash(SECOND)).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        assert_eq!(crash(60 * SECOND), 0, "a stable run forgives");
        assert_eq!(crash(SECOND), 100);
    }

    #[test]
    fn chance_takes_up_to_half_of_a_delay() {
        let settings = Settings::default();
        for (chance, delay) in [(0, 50), (u32::MAX, 100)] {
            let (mut restarts, turn) =
                (Restarts::default(), Turn { now: SECOND, chance, settings: &settings });
            restarts.crashed(SECOND, &turn);
            assert_eq!(restarts.crashed(SECOND, &turn).as_millis(), delay);
        }
    }

    #[test]
    fn a_crash_loop_is_failed_until_a_run_is_stable() {
        let (mut restarts, settings) = (Restarts::default(), Settings::default());
        let at = |now| Turn { now: now * SECOND, chance: u32::MAX, settings: &settings };
        for now in 0..9 {
            restarts.crashed(SECOND, &at(now));
        }
        assert!(!restarts.failed);
        assert_eq!(restarts.crashed(SECOND, &at(9)), 15 * SECOND);
        assert!(restarts.failed);
        restarts.crashed(SECOND, &at(999));
        assert!(restarts.failed, "rare crashes alone don't clear it");
        restarts.crashed(60 * SECOND, &at(1100));
        assert_eq!((restarts.failed, restarts.total), (false, 12));
    }

    #[test]
    fn rounds_come_after_the_pings_and_at_the_same_moments_for_everybody() {
        let (watchdog, at) = (4 * SECOND, |ms| Duration::from_millis(ms));
        assert_eq!(next_round(at(0), watchdog), at(1500));
        assert_eq!(next_round(at(1500), watchdog), at(3500));
        assert_eq!(next_round(at(1499), watchdog), at(1500));
        assert_eq!(next_round(at(100_000), watchdog), at(101_500));
    }

    #[test]
    fn a_daemon_that_stops_answering_at_any_moment_is_noticed_within_two_intervals() {
        let (watchdog, at) = (4 * SECOND, |ms| Duration::from_millis(ms));
        for stopped in (10_000..14_000).map(at) {
            let sign = Duration::from_secs(stopped.as_secs() / 2 * 2);
            let mut round = next_round(stopped, watchdog);
            while !hung(round, sign, watchdog) {
                round = next_round(round, watchdog);
            }
            assert!(round - stopped <= watchdog, "stopped at {stopped:?}, noticed at {round:?}");
        }
        assert!(!hung(at(3500), at(2000), watchdog), "a live one pinged in time");
    }
}
