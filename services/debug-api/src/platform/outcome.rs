//! What became of a release, as procmgr tells it. Pure.

use nexushub_proto::procmgr::{InstanceStatus, NextGeneration, State};

/// Starts that come to nothing until a release counts as failed: the first may be bad luck.
const TRIES: u32 = 2;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not known yet.
    Pending,
    Running,
    /// And why, for people.
    Failed(String),
}

/// How an instance stood when something was asked for: what comes of what was tried by then says nothing of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Before {
    /// Its newest generation.
    pub(crate) newest: u64,
    /// The next generation there was, if there was one.
    tried: Option<Tried>,
}

/// A release that was tried beside the one that runs. Asked for again it is the same machine of procmgr's, whose starts may all end
/// before they have a number: then they are told by their count alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tried {
    generation: u64,
    release: String,
    /// Starts that came to nothing by then, and that with the one that was alive.
    restarts: std::ops::RangeInclusive<u32>,
}

impl Before {
    /// As it stands now.
    pub(crate) fn of(live: Option<&InstanceStatus>) -> Self {
        let next = live.and_then(|live| live.next.as_ref());
        let newest = live.map_or(0, |live| live.generation).max(next.map_or(0, |next| next.generation));
        let tried = next.map(|next| Tried {
            generation: next.generation,
            release: next.release.clone(),
            restarts: next.restarts..=next.restarts.saturating_add(u32::from(next.pid != 0)),
        });
        Self { newest, tried }
    }

    /// Whether a next generation is one that was tried by then, with whichever release.
    pub(crate) fn has(&self, next: &NextGeneration) -> bool {
        let same = |tried: &&Tried| tried.generation == next.generation && tried.release == next.release;
        match self.tried.as_ref().filter(same) {
            Some(tried) => tried.restarts.contains(&next.restarts),
            None => (1..=self.newest).contains(&next.generation),
        }
    }

    /// Whether it is a start of a release that was tried by then, and no other came to nothing since.
    fn is_first_of(&self, next: &NextGeneration) -> bool {
        let tried = self.tried.as_ref().filter(|tried| tried.release == next.release);
        next.state() == State::Starting && tried.is_some_and(|tried| next.restarts <= *tried.restarts.end())
    }
}

/// What became of the release with this path, that was asked for when the instance stood so.
pub(crate) fn judge(live: Option<&InstanceStatus>, release: &str, before: &Before) -> Outcome {
    let Some(live) = live else { return Outcome::Pending };
    if let Some(next) = live.next.as_ref().filter(|next| next.release == release) {
        if before.has(next) || before.is_first_of(next) {
            return Outcome::Pending; // about to go, or to be tried again, or tried just now
        }
        return failure(next.state(), next.restarts, next.retry_unix_ms, &next.reason);
    }
    if live.release != release {
        return Outcome::Pending;
    }
    match live.state() {
        State::Running | State::Asleep => Outcome::Running,
        // What it says of an earlier life of the same release is no news.
        _ if live.generation <= before.newest && live.state() != State::Failed => Outcome::Pending,
        state => failure(state, live.restarts, live.retry_unix_ms, &live.reason),
    }
}

fn failure(state: State, restarts: u32, retry_unix_ms: i64, reason: &str) -> Outcome {
    let for_good = state == State::Failed && retry_unix_ms == 0;
    let again = matches!(state, State::Failed | State::Starting | State::Unhealthy) && restarts >= TRIES;
    if for_good || again { Outcome::Failed(lasting(reason).to_owned()) } else { Outcome::Pending }
}

/// A reason without what procmgr says of the next start: there is none once the release is taken back.
pub(crate) fn lasting(reason: &str) -> &str {
    reason.split_once("; next start ").map_or(reason, |(reason, _)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(state: State, release: &str, restarts: u32) -> InstanceStatus {
        let (release, reason) = (release.to_owned(), "exited with code 3; next start in 4 s".to_owned());
        let retry_unix_ms = 7;
        InstanceStatus {
            state: state.into(),
            release,
            restarts,
            reason,
            retry_unix_ms,
            generation: 5,
            ..InstanceStatus::default()
        }
    }

    fn beside(state: State, restarts: u32, retry_unix_ms: i64) -> InstanceStatus {
        let next = NextGeneration {
            state: state.into(),
            release: "/new".into(),
            restarts,
            retry_unix_ms,
            reason: "exited with code 3; next start in 4 s".into(),
            generation: 6,
            ..NextGeneration::default()
        };
        InstanceStatus { next: Some(next), ..live(State::Running, "/old", 0) }
    }

    fn since(newest: u64) -> Before {
        Before { newest, tried: None }
    }

    fn failed() -> Outcome {
        Outcome::Failed("exited with code 3".into())
    }

    #[test]
    fn a_release_runs_once_the_instance_does_with_it() {
        assert_eq!(judge(None, "/new", &since(0)), Outcome::Pending);
        assert_eq!(judge(Some(&live(State::Running, "/old", 0)), "/new", &since(5)), Outcome::Pending);
        assert_eq!(judge(Some(&live(State::Running, "/new", 0)), "/new", &since(4)), Outcome::Running);
        assert_eq!(judge(Some(&live(State::Asleep, "/new", 0)), "/new", &since(4)), Outcome::Running);
        assert_eq!(judge(Some(&live(State::Starting, "/new", 0)), "/new", &since(4)), Outcome::Pending);
    }

    #[test]
    fn the_second_start_that_comes_to_nothing_is_a_failure() {
        assert_eq!(judge(Some(&beside(State::Starting, 0, 0)), "/new", &since(5)), Outcome::Pending);
        assert_eq!(judge(Some(&beside(State::Failed, 1, 7)), "/new", &since(5)), Outcome::Pending);
        assert_eq!(judge(Some(&beside(State::Failed, 2, 7)), "/new", &since(5)), failed());
        assert_eq!(
            judge(Some(&beside(State::Failed, 0, 0)), "/new", &since(5)),
            failed(),
            "never tried again"
        );
        assert_eq!(
            judge(Some(&live(State::Failed, "/new", 2)), "/new", &since(4)),
            failed(),
            "not beside another"
        );
    }

    #[test]
    fn what_an_earlier_life_of_the_same_release_came_to_is_no_news() {
        assert_eq!(judge(Some(&live(State::Starting, "/new", 9)), "/new", &since(5)), Outcome::Pending);
        assert_eq!(judge(Some(&beside(State::Failed, 2, 7)), "/new", &since(6)), Outcome::Pending);
        let mut unnumbered = beside(State::Failed, 2, 7);
        unnumbered.next.iter_mut().for_each(|next| next.generation = 0);
        assert_eq!(
            judge(Some(&unnumbered), "/new", &since(6)),
            failed(),
            "no start of it got as far as a number"
        );
        assert_eq!(Before::of(Some(&beside(State::Starting, 0, 0))).newest, 6);
        assert_eq!(Before::of(None), Before::default());
    }

    #[test]
    fn the_same_release_asked_for_again_is_not_given_up_while_its_own_start_is_under_way() {
        let again = |state, restarts| {
            let mut live = beside(state, restarts, 0);
            live.next.iter_mut().for_each(|next| next.generation = 7);
            live
        };
        let before = Before::of(Some(&beside(State::Failed, 3, 7)));
        assert_eq!(judge(Some(&again(State::Starting, 3)), "/new", &before), Outcome::Pending);
        assert_eq!(
            judge(Some(&again(State::Starting, 4)), "/new", &before),
            failed(),
            "that came to nothing"
        );
        assert_eq!(judge(Some(&again(State::Failed, 3)), "/new", &before), failed(), "for good");
    }

    #[test]
    fn the_same_release_asked_for_again_is_judged_by_starts_that_never_have_a_number() {
        for generation in [0, 6] {
            let as_told = |restarts, pid| {
                let mut live = beside(State::Failed, restarts, 7);
                live.next.iter_mut().for_each(|next| (next.generation, next.pid) = (generation, pid));
                live
            };
            let before = Before::of(Some(&as_told(3, 0)));
            assert_eq!(
                judge(Some(&as_told(3, 0)), "/new", &before),
                Outcome::Pending,
                "the verdict of before"
            );
            assert_eq!(judge(Some(&as_told(4, 0)), "/new", &before), failed(), "a start of its own");
            let before = Before::of(Some(&as_told(3, 77)));
            assert_eq!(
                judge(Some(&as_told(4, 0)), "/new", &before),
                Outcome::Pending,
                "that was alive by then"
            );
            assert_eq!(judge(Some(&as_told(5, 0)), "/new", &before), failed());
        }
    }
}
