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

/// What became of the release with this path, that was asked for when the instance's newest generation was `before`.
pub(crate) fn judge(live: Option<&InstanceStatus>, release: &str, before: u64) -> Outcome {
    let Some(live) = live else { return Outcome::Pending };
    if let Some(next) = live.next.as_ref().filter(|next| next.release == release) {
        if is_earlier(next, before) {
            return Outcome::Pending; // about to go
        }
        return failure(next.state(), next.restarts, next.retry_unix_ms, &next.reason);
    }
    if live.release != release {
        return Outcome::Pending;
    }
    match live.state() {
        State::Running | State::Asleep => Outcome::Running,
        // What it says of an earlier life of the same release is no news.
        _ if live.generation <= before && live.state() != State::Failed => Outcome::Pending,
        state => failure(state, live.restarts, live.retry_unix_ms, &live.reason),
    }
}

/// Whether it is of an earlier try, with whichever release, than what was asked for when the newest generation was `before`.
pub(crate) fn is_earlier(next: &NextGeneration, before: u64) -> bool {
    (1..=before).contains(&next.generation)
}

/// The newest generation of an instance.
pub(crate) fn newest(live: Option<&InstanceStatus>) -> u64 {
    live.map_or(0, |live| live.next.as_ref().map_or(0, |next| next.generation).max(live.generation))
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

    fn failed() -> Outcome {
        Outcome::Failed("exited with code 3".into())
    }

    #[test]
    fn a_release_runs_once_the_instance_does_with_it() {
        assert_eq!(judge(None, "/new", 0), Outcome::Pending);
        assert_eq!(judge(Some(&live(State::Running, "/old", 0)), "/new", 5), Outcome::Pending);
        assert_eq!(judge(Some(&live(State::Running, "/new", 0)), "/new", 4), Outcome::Running);
        assert_eq!(judge(Some(&live(State::Asleep, "/new", 0)), "/new", 4), Outcome::Running);
        assert_eq!(judge(Some(&live(State::Starting, "/new", 0)), "/new", 4), Outcome::Pending);
    }

    #[test]
    fn the_second_start_that_comes_to_nothing_is_a_failure() {
        assert_eq!(judge(Some(&beside(State::Starting, 0, 0)), "/new", 5), Outcome::Pending);
        assert_eq!(judge(Some(&beside(State::Failed, 1, 7)), "/new", 5), Outcome::Pending);
        assert_eq!(judge(Some(&beside(State::Failed, 2, 7)), "/new", 5), failed());
        assert_eq!(judge(Some(&beside(State::Failed, 0, 0)), "/new", 5), failed(), "never tried again");
        assert_eq!(judge(Some(&live(State::Failed, "/new", 2)), "/new", 4), failed(), "not beside another");
    }

    #[test]
    fn what_an_earlier_life_of_the_same_release_came_to_is_no_news() {
        assert_eq!(judge(Some(&live(State::Starting, "/new", 9)), "/new", 5), Outcome::Pending);
        assert_eq!(judge(Some(&beside(State::Failed, 2, 7)), "/new", 6), Outcome::Pending);
        let mut unnumbered = beside(State::Failed, 2, 7);
        unnumbered.next.iter_mut().for_each(|next| next.generation = 0);
        assert_eq!(judge(Some(&unnumbered), "/new", 6), failed(), "no start of it got as far as a number");
        assert_eq!(newest(Some(&beside(State::Starting, 0, 0))), 6);
        assert_eq!(newest(None), 0);
    }
}
