//! What the keeper makes of what it hears. Pure: the clock is a parameter.
//!
//! ```text
//! booting ──hello──► up ──started──► running ──code=N | signal=N──► ended
//!    └──────────────┴───── failed … · silence · the VMM is gone ──► a reason
//! ```
//! Invariant: only the agent's word is an end of the app. A VMM that is gone is a reason, whatever its exit code was: a guest
//! that panics or reboots leaves 0, a VMM that crashes leaves 1.

use std::time::{Duration, Instant};

use nexushub_agent::word::{End, Order, Word, one_line};

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The app ended, and the agent says how.
    End(End),
    /// Why nobody can say how, or why it was never started. One line.
    Reason(String),
}

/// The state of one machine.
#[derive(Debug)]
pub(crate) struct Watch {
    deadline: Instant,
    silence: Duration,
    heard: bool,
    stop: Stop,
    /// What it said last of its inside.
    pub(crate) guest: Guest,
}

/// What a guest uses, in its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) memory_bytes: u64,
    pub(crate) processes: u64,
    pub(crate) oom_kills: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Stop {
    None,
    Wanted,
    Said,
}

impl Watch {
    pub(crate) fn new(now: Instant, boot: Duration, silence: Duration) -> Self {
        Self { deadline: now + boot, silence, heard: false, stop: Stop::None, guest: Guest::default() }
    }

    /// When [`Watch::tick`] has something to say.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The agent said a line.
    pub(crate) fn line(&mut self, now: Instant, line: &str) -> Option<Outcome> {
        let word: Word = line.parse().ok()?;
        self.heard = true;
        self.deadline = now + self.silence;
        match word {
            Word::Ended(end) => Some(Outcome::End(end)),
            Word::Failed(reason) => Some(Outcome::Reason(reason)),
            Word::Alive { memory_bytes, processes } => {
                self.guest = Guest { memory_bytes, processes, ..self.guest };
                None
            }
            Word::OomKills(oom_kills) => {
                self.guest.oom_kills = oom_kills;
                None
            }
            Word::Hello | Word::Started => None,
        }
    }

    /// Somebody wants it stopped.
    pub(crate) fn stop(&mut self) {
        if self.stop == Stop::None {
            self.stop = Stop::Wanted;
        }
    }

    /// What to say to the agent now, once it listens.
    pub(crate) fn order(&mut self) -> Option<Order> {
        if !self.heard || self.stop != Stop::Wanted {
            return None;
        }
        self.stop = Stop::Said;
        Some(Order::Stop)
    }

    /// Time has passed.
    pub(crate) fn tick(&self, now: Instant) -> Option<Outcome> {
        if now < self.deadline {
            return None;
        }
        let reason = if self.heard {
            format!("the virtual machine gave no sign of life for {} ms", self.silence.as_millis())
        } else {
            "the virtual machine did not start in time".into()
        };
        Some(Outcome::Reason(reason))
    }

    /// The VMM has ended, with these last words on its own standard error.
    pub(crate) fn gone(&self, last: &str) -> Outcome {
        let last =
            last.lines().rev().find(|line| !line.trim().is_empty()).map(|line| format!(": {}", line.trim()));
        let what = if self.heard { "ended without word of its app" } else { "did not start" };
        Outcome::Reason(one_line(&format!("the virtual machine {what}{}", last.unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Duration = Duration::from_secs(30);
    const SILENCE: Duration = Duration::from_secs(20);

    fn watch() -> (Watch, Instant) {
        let now = Instant::now();
        (Watch::new(now, BOOT, SILENCE), now)
    }

    fn reason(outcome: Option<Outcome>) -> String {
        match outcome {
            Some(Outcome::Reason(reason)) => reason,
            other => format!("not a reason: {other:?}"),
        }
    }

    #[test]
    fn only_the_agent_says_how_an_app_ended() {
        let (mut watch, now) = watch();
        assert_eq!(watch.line(now, "hello"), None);
        assert_eq!(reason(Some(watch.gone(""))), "the virtual machine ended without word of its app");
        assert_eq!(watch.line(now, "signal=11"), Some(Outcome::End(End::Signal(11))));
        assert_eq!(reason(watch.line(now, "failed could not start x")), "could not start x");
    }

    #[test]
    fn a_guest_that_is_silent_is_given_up() {
        let (mut watch, start) = watch();
        assert_eq!(watch.tick(start + BOOT - Duration::from_millis(1)), None);
        assert_eq!(reason(watch.tick(start + BOOT)), "the virtual machine did not start in time");
        assert_eq!(watch.line(start, "alive 1 2"), None);
        assert_eq!(watch.tick(start + SILENCE - Duration::from_millis(1)), None);
        assert_eq!(
            reason(watch.tick(start + SILENCE)),
            "the virtual machine gave no sign of life for 20000 ms"
        );
    }

    #[test]
    fn what_a_guest_says_of_its_inside_is_known_until_it_says_more() {
        let (mut watch, now) = watch();
        for line in ["alive 5 2", "oom-kills 1", "alive 7 3"] {
            assert_eq!(watch.line(now, line), None);
        }
        assert_eq!(watch.guest, Guest { memory_bytes: 7, processes: 3, oom_kills: 1 });
    }

    #[test]
    fn what_is_no_word_of_the_agents_is_no_sign_of_life() {
        let (mut watch, start) = watch();
        assert_eq!(watch.line(start + BOOT, "code=zero"), None);
        assert!(watch.tick(start + BOOT).is_some());
    }

    #[test]
    fn a_stop_waits_for_the_agent_and_is_said_once() {
        let (mut watch, now) = watch();
        watch.stop();
        assert_eq!(watch.order(), None);
        watch.line(now, "hello");
        assert_eq!(watch.order(), Some(Order::Stop));
        watch.stop();
        assert_eq!(watch.order(), None);
    }

    #[test]
    fn a_vmm_that_never_came_up_says_why() {
        let (watch, _) = watch();
        let said = reason(Some(watch.gone("thread panicked\nno /dev/kvm\n\n")));
        assert_eq!(said, "the virtual machine did not start: no /dev/kvm");
    }
}
