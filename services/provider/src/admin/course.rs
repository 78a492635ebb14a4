//! What to ask the admin app next, and when. Pure: the clock and the jitter are handed in.
//!
//! ```text
//!           ┌──────────── applied: the cursor moves ────────────┐
//!           ▼                                                   │
//! start ─▶ list ─(failed)─▶ wait 5 s … 60 s ─▶ list             │
//!           │ applied                                           │
//!           ▼                                                   │
//!        changes? ── held, then unchanged ──▶ at once again     │
//!           ├─────── unchanged at once ─────▶ wait 5 s … 60 s   │
//!           ├─────── failed ──▶ wait 5 s … 60 s, then ask from the beginning which event is the last; broken off without an
//!           │                   answer while it was held: at once
//!           └─────── another event is the last ─────────────▶ list
//! ```
//! The admin app answers at once when there is an event after the cursor and holds the call when there is none, so one call is
//! always open and nothing is asked in vain. Which event was the last is not kept over a failure: an admin app that came
//! back with other data would never reach a cursor above its own.

use std::time::Duration;

/// First and longest wait after what was in vain.
const FIRST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(60);
/// An answer without news that comes sooner was not held.
const INSTANT: Duration = Duration::from_secs(1);
/// Between the beginnings of two lists, at least and at most: a flood of changes becomes a few lists.
const BETWEEN_LISTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Within them so many times what the last list took, so that long ones leave time for the rest.
const OF_ITS_TIME: u32 = 4;

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The whole list.
    List,
    /// Whether there is an event of this number or a later one.
    Changes(u64),
}

/// What the admin app said about changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This event is the last.
    Last(u64),
    /// There is none that was asked for.
    Unchanged,
}

/// Where provider stands with the admin app.
#[derive(Clone, Debug)]
pub struct Course {
    /// The last event that the applied list is known to hold.
    cursor: u64,
    /// The cursor once a list is applied that was asked for from now on; a list is due.
    due: Option<u64>,
    /// Whether the cursor is the admin app's own word, in this very run of good answers.
    certain: bool,
    /// When the last list was asked for, and how soon after that the next one may be.
    listed: Option<Duration>,
    pause: Duration,
    /// What the next wait is.
    wait: Duration,
}

impl Default for Course {
    fn default() -> Self {
        Self { cursor: 0, due: Some(0), certain: false, listed: None, pause: BETWEEN_LISTS.0, wait: FIRST }
    }
}

impl Course {
    /// What to ask next; `now` counts from any moment.
    pub fn ask(&mut self, now: Duration) -> Ask {
        if self.due.is_some() {
            self.listed = Some(now);
            return Ask::List;
        }
        Ask::Changes(if self.certain { self.cursor.saturating_add(1) } else { 1 })
    }

    /// The list was applied.
    pub fn applied(&mut self, now: Duration) {
        let took = self.listed.map_or(Duration::ZERO, |listed| now.saturating_sub(listed));
        self.pause = (took * OF_ITS_TIME).clamp(BETWEEN_LISTS.0, BETWEEN_LISTS.1);
        if let Some(cursor) = self.due.take() {
            (self.certain, self.cursor) = (cursor > 0, cursor);
            self.wait = FIRST;
        }
    }

    /// The answer about changes, that took so long; how long to wait now. `jitter` is within 0 and 1.
    pub fn heard(&mut self, heard: Heard, took: Duration, now: Duration, jitter: f64) -> Duration {
        match heard {
            Heard::Last(last) if last != self.cursor => {
                self.due = Some(last);
                let next = self.listed.map_or(now, |listed| listed + self.pause);
                next.saturating_sub(now)
            }
            Heard::Last(_) if !self.certain => {
                self.certain = true;
                Duration::ZERO
            }
            Heard::Unchanged if took >= INSTANT => {
                self.wait = FIRST;
                Duration::ZERO
            }
            Heard::Last(_) | Heard::Unchanged => self.back_off(jitter),
        }
    }

    /// Something failed; how long to wait now.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        self.certain = false;
        self.back_off(jitter)
    }

    /// A call about changes broke off without an answer, after so long; how long to wait now. One that was held was well until
    /// somebody on its way was replaced.
    pub fn broke_off(&mut self, took: Duration, jitter: f64) -> Duration {
        self.certain = false;
        if took >= INSTANT { BETWEEN_LISTS.0 } else { self.back_off(jitter) }
    }

    /// Up to a quarter longer than it would be, so that not everybody asks at the same moment.
    fn back_off(&mut self, jitter: f64) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(MOST);
        wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Duration = Duration::from_secs(50);
    const SOON: Duration = Duration::from_millis(3);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One that has applied a list with this event in it.
    fn standing(cursor: u64) -> Course {
        let mut course = Course::default();
        course.ask(at(0));
        course.applied(at(0));
        course.heard(Heard::Last(cursor), SOON, at(1_000), 0.0);
        course.ask(at(1_000));
        course.applied(at(1_000));
        course
    }

    #[test]
    fn it_begins_with_the_list_and_then_asks_for_everything_after_it() {
        let mut course = Course::default();
        assert_eq!(course.ask(at(0)), Ask::List);
        course.applied(at(0));
        assert_eq!(course.ask(at(1)), Ask::Changes(1));
        assert_eq!(course.heard(Heard::Last(7), SOON, at(1_000), 0.0), Duration::ZERO);
        assert_eq!(course.ask(at(1_000)), Ask::List);
        course.applied(at(1_000));
        assert_eq!(course.ask(at(1_001)), Ask::Changes(8));
    }

    #[test]
    fn the_cursor_moves_only_once_the_list_was_applied() {
        let mut course = standing(7);
        course.heard(Heard::Last(9), SOON, at(2_000), 0.0);
        assert_eq!(course.ask(at(2_000)), Ask::List);
        course.failed(0.0);
        assert_eq!(course.ask(at(7_000)), Ask::List, "it is due still");
        course.applied(at(7_000));
        assert_eq!(course.ask(at(7_001)), Ask::Changes(10));
    }

    #[test]
    fn a_call_that_was_held_is_followed_by_the_next_at_once() {
        let mut course = standing(7);
        for _ in 0..5 {
            assert_eq!(course.ask(at(0)), Ask::Changes(8));
            assert_eq!(course.heard(Heard::Unchanged, HELD, at(0), 0.5), Duration::ZERO);
        }
    }

    #[test]
    fn answers_in_vain_are_ever_rarer_up_to_a_minute() {
        let mut course = standing(7);
        let mut waits = Vec::new();
        for heard in [Heard::Unchanged, Heard::Last(7), Heard::Unchanged, Heard::Last(7), Heard::Unchanged] {
            waits.push(course.heard(heard, SOON, at(0), 0.0).as_secs());
        }
        waits.push(course.failed(0.0).as_secs());
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        course.heard(Heard::Unchanged, HELD, at(0), 0.0);
        assert_eq!(course.failed(0.0).as_secs(), 5, "after a good answer it is quick again");
    }

    #[test]
    fn waits_are_spread_but_bounded() {
        assert_eq!(standing(1).failed(1.0), at(6_250));
        assert_eq!(standing(1).failed(7.0), at(6_250));
    }

    #[test]
    fn after_a_failure_an_admin_app_with_fewer_events_is_heard_too() {
        let mut course = standing(700);
        course.failed(0.0);
        assert_eq!(course.ask(at(9_000)), Ask::Changes(1));
        assert_eq!(course.heard(Heard::Last(3), SOON, at(9_000), 0.0), Duration::ZERO);
        assert_eq!(course.ask(at(9_000)), Ask::List);
        course.applied(at(9_000));
        assert_eq!(course.ask(at(9_001)), Ask::Changes(4));
    }

    #[test]
    fn after_a_failure_the_same_last_event_is_no_news() {
        let mut course = standing(7);
        course.failed(0.0);
        assert_eq!(course.ask(at(9_000)), Ask::Changes(1));
        assert_eq!(course.heard(Heard::Last(7), SOON, at(9_000), 0.0), Duration::ZERO);
        assert_eq!(course.ask(at(9_000)), Ask::Changes(8), "now it waits for the next");
    }

    /// How many lists a flood of changes leads to in ten seconds, when each takes so long.
    fn lists_of_a_flood(each: Duration) -> u32 {
        let mut course = standing(0);
        let (mut now, mut lists) = (at(10_000), 0);
        for event in 1.. {
            now += course.heard(Heard::Last(event), SOON, now, 0.0);
            if now >= at(20_000) {
                break;
            }
            assert_eq!(course.ask(now), Ask::List);
            now += each;
            course.applied(now);
            lists += 1;
        }
        lists
    }

    #[test]
    fn a_flood_of_changes_becomes_a_few_lists_and_long_ones_fewer() {
        assert_eq!(lists_of_a_flood(SOON), 100);
        assert_eq!(lists_of_a_flood(at(50)), 50, "a quarter of the time at most");
        assert_eq!(lists_of_a_flood(at(900)), 10, "but a second is the longest wait");
    }

    #[test]
    fn a_call_that_breaks_off_while_it_is_held_is_made_again_at_once_and_one_that_is_refused_is_not() {
        let mut course = standing(7);
        assert_eq!(course.broke_off(HELD, 1.0), BETWEEN_LISTS.0);
        assert_eq!(course.ask(at(60_000)), Ask::Changes(1), "who comes back may have other data");
        assert_eq!(course.broke_off(SOON, 0.0), FIRST);
        assert_eq!(course.failed(0.0), FIRST * 2, "an answer that is an error, however late it came");
    }
}
