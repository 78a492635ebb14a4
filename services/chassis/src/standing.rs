//! How an app stands: the words for procmgr's states, and when it is up. What procmgr says of an instance, and what debug-api makes of
//! that in the contract's words, come to the same for everybody who waits for it. Pure.

use nexushub_proto::procmgr::{InstanceStatus, State};

/// The words of the contract's status for an app that is up.
pub const RUNNING: &str = "running";
/// Nobody asked for it lately.
pub const ASLEEP: &str = "asleep";
/// What the contract's status says of health checks that are answered.
pub const HEALTHY: &str = "healthy";

/// The word for each state; one that was not looked at is unknown.
const WORDS: [(State, &str); 7] = [
    (State::Starting, "starting"),
    (State::Running, RUNNING),
    (State::Unhealthy, "unhealthy"),
    (State::Stopping, "stopping"),
    (State::Stopped, "stopped"),
    (State::Failed, "failed"),
    (State::Asleep, ASLEEP),
];

/// The state that it is in, for people and programs.
#[must_use]
pub fn word(instance: &InstanceStatus) -> &'static str {
    WORDS.iter().find(|(state, _)| *state == instance.state()).map_or("unknown", |(_, word)| word)
}

/// The state that a word means.
#[must_use]
pub fn state(word: &str) -> State {
    WORDS.iter().find(|(_, known)| *known == word).map_or(State::Unknown, |(state, _)| *state)
}

/// Whether it answers its health checks. What sleeps has, and does again as soon as somebody asks for it.
#[must_use]
pub fn is_up(instance: &InstanceStatus) -> bool {
    instance.state() == State::Asleep || (instance.state() == State::Running && !instance.flagged)
}

/// Whether who asks for it gets to it, too: the proxy was told.
#[must_use]
pub fn is_reached(instance: &InstanceStatus) -> bool {
    is_up(instance) && (instance.routed || instance.state() == State::Asleep)
}

/// Whether the contract's status says that it is up.
#[must_use]
pub fn says_up(status: &str, health_check: Option<&str>) -> bool {
    status == ASLEEP || (status == RUNNING && health_check == Some(HEALTHY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(state: State, routed: bool, flagged: bool) -> InstanceStatus {
        InstanceStatus { state: state.into(), routed, flagged, ..Default::default() }
    }

    #[test]
    fn up_is_what_answers_or_sleeps_and_reached_is_what_the_proxy_knows_of() {
        let both = |state, routed, flagged| {
            let one = instance(state, routed, flagged);
            (is_up(&one), is_reached(&one))
        };
        assert_eq!(both(State::Running, true, false), (true, true));
        assert_eq!(both(State::Running, false, false), (true, false), "the proxy was not told yet");
        assert_eq!(both(State::Running, true, true), (false, false), "it answers no more");
        assert_eq!(both(State::Asleep, false, false), (true, true), "a request wakes it");
        for state in [State::Starting, State::Unhealthy, State::Failed, State::Stopping, State::Unknown] {
            assert_eq!(both(state, true, false), (false, false), "{state:?}");
        }
    }

    #[test]
    fn each_state_has_one_word_both_ways() {
        let all = (0..).map_while(|number| State::try_from(number).ok());
        let known: Vec<_> =
            all.filter(|state| !matches!(state, State::Unspecified | State::Unknown)).collect();
        for wanted in &known {
            assert_eq!(state(word(&instance(*wanted, false, false))), *wanted);
        }
        assert_eq!(known.len(), WORDS.len(), "a state that the contract is given needs a word");
        assert_eq!(word(&InstanceStatus::default()), "unknown");
        assert_eq!((state("unknown"), state("\u{1b}[2J")), (State::Unknown, State::Unknown));
    }

    #[test]
    fn the_contracts_words_say_the_same() {
        assert!(says_up("running", Some("healthy")) && says_up("asleep", None));
        for (status, health) in
            [("running", None), ("running", Some("unhealthy")), ("pending", Some("healthy")), ("", None)]
        {
            assert!(!says_up(status, health), "{status} {health:?}");
        }
    }
}
