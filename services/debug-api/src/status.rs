//! How an application stands, in the contract's words. Pure.
//!
//! `running` is said only of a release that procmgr says is running; while it starts, is replaced or waits for its next
//! try, the word is `pending`; `stopped` is said only when the developer stopped it (clients give up at that word).

pub(crate) mod details;

use nexushub_chassis::standing::{ASLEEP, HEALTHY, RUNNING, is_up};
use nexushub_proto::procmgr::{InstanceStatus, State, endpoint::Kind};
use serde::{Serialize, Serializer};

use crate::{
    names::Description,
    platform::outcome,
    record::{Record, Wanted, rfc3339},
};

/// The contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Pending,
    Installed,
    Running,
    /// Nobody asked for it; whoever does gets it. Not among the contract's own words, whose platforms never let one sleep.
    Asleep,
    Stopped,
    Failed,
}

impl Word {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Installed => "installed",
            Self::Running => RUNNING,
            Self::Asleep => ASLEEP,
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// `GET …/status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    pub(crate) application_id: String,
    pub(crate) status: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) process_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health_check: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) last_updated: String,
    pub(crate) metadata: Metadata,
}

/// What the developer called it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    app_id: String,
    display_name: String,
    host_name: String,
    static_service_url: String,
}

impl From<&Description> for Metadata {
    fn from(description: &Description) -> Self {
        Self {
            app_id: description.app_id.to_string(),
            display_name: description.display_name.clone(),
            host_name: description.host_name.to_string(),
            static_service_url: description.static_service_url.clone().unwrap_or_default(),
        }
    }
}

/// How the application stands; `release` is the path of the one that should run.
pub(crate) fn judge(
    record: &Record,
    live: Option<&InstanceStatus>,
    release: &str,
    failed_after: u32,
) -> Standing {
    let updated = live.map_or(0, |live| live.since_unix_ms).max(record.updated_unix_ms);
    let mut standing = Standing {
        application_id: record.id.clone(),
        status: Word::Pending,
        process_id: None,
        port: None,
        health_check: None,
        error: record.refused.clone(),
        last_updated: rfc3339(updated),
        metadata: Metadata::from(&record.description),
    };
    match record.wanted {
        Wanted::Nothing if record.refused.is_some() => standing.status = Word::Installed,
        Wanted::Nothing => {}
        Wanted::Stopped | Wanted::Gone => {
            let alive = live.is_some_and(|live| live.pid != 0 || live.state() == State::Stopping);
            standing.status = if alive { Word::Pending } else { Word::Stopped };
        }
        Wanted::Run if record.failed.is_some() => {
            (standing.status, standing.error) = (Word::Failed, record.failed.clone());
        }
        Wanted::Run => running(&mut standing, live, release, failed_after),
    }
    standing
}

fn running(standing: &mut Standing, live: Option<&InstanceStatus>, release: &str, failed_after: u32) {
    // An older generation that still runs says nothing about the release that should.
    let is_it = |live: &InstanceStatus| live.release.is_empty() || live.release == release;
    let next = live.and_then(next).filter(is_it);
    let Some(live) = live.filter(|live| is_it(live)).or(next.as_ref()) else { return };
    if has_failed(live, failed_after) {
        standing.status = Word::Failed;
    }
    match live.state() {
        State::Running => {
            standing.status = Word::Running;
            standing.health_check = Some(if is_up(live) { HEALTHY } else { "unhealthy" });
            standing.process_id = Some(live.pid).filter(|pid| *pid != 0);
            standing.port = match live.endpoint.as_ref().and_then(|endpoint| endpoint.kind.as_ref()) {
                Some(Kind::TcpPort(port)) => Some(*port),
                Some(Kind::Shim(_)) | None => None,
            };
            return;
        }
        State::Asleep => {
            standing.status = Word::Asleep;
            return;
        }
        State::Unhealthy => standing.health_check = Some("unhealthy"),
        State::Failed | State::Starting => {}
        State::Unspecified | State::Unknown | State::Stopping | State::Stopped => return,
    }
    let quiet = live.state() == State::Starting && live.restarts == 0;
    if !quiet && !live.reason.is_empty() {
        standing.error = Some(told(live));
    }
}

/// Whether it was tried often enough, or is not tried again.
fn has_failed(live: &InstanceStatus, failed_after: u32) -> bool {
    let looping = live.restarts >= failed_after;
    match live.state() {
        State::Failed => looping || live.retry_unix_ms == 0,
        State::Starting => looping,
        _ => false,
    }
}

/// Why the release with this path, which was to take the place of one that runs, has failed.
pub(crate) fn failed_beside(live: &InstanceStatus, release: &str, failed_after: u32) -> Option<String> {
    let next = next(live).filter(|next| next.release == release)?;
    let lasting = |next: InstanceStatus| {
        let reason = outcome::lasting(&next.reason).to_owned();
        told(&InstanceStatus { reason, ..next })
    };
    has_failed(&next, failed_after).then(|| lasting(next))
}

/// Why, and on the lines that follow what the app said last.
fn told(live: &InstanceStatus) -> String {
    match live.last_words.as_str() {
        "" => live.reason.clone(),
        words => format!("{}\n{words}", live.reason),
    }
}

/// The generation that is to take the place of the one that runs, as if it were alone.
fn next(live: &InstanceStatus) -> Option<InstanceStatus> {
    let next = live.next.clone()?;
    Some(InstanceStatus {
        state: next.state,
        reason: next.reason,
        last_words: next.last_words,
        restarts: next.restarts,
        retry_unix_ms: next.retry_unix_ms,
        release: next.release,
        ..InstanceStatus::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::procmgr::{Endpoint, NextGeneration};

    use super::*;
    use crate::record::tests::{record, release};

    fn wanting(wanted: Wanted) -> Record {
        let mut record = record("a");
        record.adopt(release("r"), 3);
        record.wanted = wanted;
        record
    }

    fn live(state: State) -> InstanceStatus {
        InstanceStatus {
            state: state.into(),
            pid: 42,
            endpoint: Some(Endpoint { kind: Some(Kind::TcpPort(10_001)), h2c: false }),
            reason: "exited with code 3".to_owned(),
            release: "/r".to_owned(),
            ..InstanceStatus::default()
        }
    }

    fn word(wanted: Wanted, live: impl Into<Option<InstanceStatus>>) -> Word {
        judge(&wanting(wanted), live.into().as_ref(), "/r", 3).status
    }

    #[test]
    fn running_and_healthy_come_from_procmgr_alone() {
        let standing = judge(&wanting(Wanted::Run), Some(&live(State::Running)), "/r", 3);
        let json = serde_json::to_value(&standing).unwrap();
        assert_eq!(json["status"], "running");
        assert_eq!(json["healthCheck"], "healthy");
        assert_eq!((json["processId"].as_u64(), json["port"].as_u64()), (Some(42), Some(10_001)));
        assert_eq!(json["metadata"]["staticServiceUrl"], "");
        assert_eq!(word(Wanted::Run, live(State::Asleep)), Word::Asleep);
        assert_eq!(word(Wanted::Run, None), Word::Pending);
    }

    #[test]
    fn an_older_release_that_still_runs_is_not_the_new_one_running() {
        let old = InstanceStatus { release: "/old".to_owned(), ..live(State::Running) };
        assert_eq!(word(Wanted::Run, old), Word::Pending);
    }

    #[test]
    fn a_new_release_that_fails_beside_an_older_one_is_failed_though_that_one_runs() {
        let beside = |restarts| {
            let (release, reason) = ("/r".to_owned(), "exited with code 3".to_owned());
            let state = State::Failed.into();
            let next =
                NextGeneration { release, reason, state, restarts, retry_unix_ms: 9, ..Default::default() };
            InstanceStatus { release: "/old".to_owned(), next: Some(next), ..live(State::Running) }
        };
        assert_eq!(word(Wanted::Run, beside(1)), Word::Pending);
        let standing = judge(&wanting(Wanted::Run), Some(&beside(3)), "/r", 3);
        assert_eq!((standing.status, standing.error.as_deref()), (Word::Failed, Some("exited with code 3")));
        assert_eq!(judge(&wanting(Wanted::Run), Some(&beside(3)), "/third", 3).status, Word::Pending);
        assert_eq!(failed_beside(&beside(3), "/r", 3).as_deref(), Some("exited with code 3"));
        assert_eq!(
            (failed_beside(&beside(2), "/r", 3), failed_beside(&beside(3), "/third", 3)),
            (None, None)
        );
        assert_eq!(failed_beside(&live(State::Failed), "/r", 3), None, "it is alone");
    }

    #[test]
    fn who_asks_after_a_release_was_given_up_is_told_why_though_the_one_before_runs() {
        let mut record = wanting(Wanted::Run);
        record.adopt(release("r2"), 3);
        record.give_up("r", "exited with code 3\nno such table".to_owned());
        let standing = judge(&record, Some(&live(State::Running)), "/r", 3);
        assert_eq!((standing.status, standing.health_check), (Word::Failed, None));
        assert_eq!(standing.error.as_deref(), Some("exited with code 3\nno such table"));
    }

    #[test]
    fn only_a_stop_on_purpose_is_called_stopped() {
        for state in [State::Unknown, State::Starting, State::Unhealthy, State::Stopping, State::Stopped] {
            assert_eq!(word(Wanted::Run, live(state)), Word::Pending, "{state:?}");
        }
        assert_eq!(word(Wanted::Stopped, None), Word::Stopped);
        assert_eq!(word(Wanted::Stopped, live(State::Running)), Word::Pending, "not down yet");
        assert_eq!(word(Wanted::Stopped, InstanceStatus { pid: 0, ..live(State::Stopped) }), Word::Stopped);
    }

    #[test]
    fn an_app_that_fails_again_and_again_is_failed_with_the_reason() {
        let failing =
            |restarts, retry_unix_ms| InstanceStatus { restarts, retry_unix_ms, ..live(State::Failed) };
        assert_eq!(word(Wanted::Run, failing(1, 99)), Word::Pending);
        assert_eq!(word(Wanted::Run, failing(3, 99)), Word::Failed);
        assert_eq!(word(Wanted::Run, failing(0, 0)), Word::Failed, "no further try is planned");
        let standing = judge(&wanting(Wanted::Run), Some(&failing(3, 99)), "/r", 3);
        assert_eq!(standing.error.as_deref(), Some("exited with code 3"));
        let starting = InstanceStatus { restarts: 5, ..live(State::Starting) };
        assert_eq!(word(Wanted::Run, starting), Word::Failed, "still looping");
        let talkative = InstanceStatus { last_words: "one\ntwo".into(), ..failing(3, 99) };
        let standing = judge(&wanting(Wanted::Run), Some(&talkative), "/r", 3);
        assert_eq!(standing.error.as_deref(), Some("exited with code 3\none\ntwo"));
    }

    #[test]
    fn before_an_install_it_is_pending_and_after_one_without_an_app_installed() {
        let mut fresh = record("a");
        assert_eq!(judge(&fresh, None, "", 3).status, Word::Pending);
        fresh.refused = Some("bin/app is missing".to_owned());
        assert_eq!(judge(&fresh, None, "", 3).status, Word::Installed);
    }
}
