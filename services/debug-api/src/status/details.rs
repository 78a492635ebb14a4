//! What else is known of an application than the contract's status has: what procmgr says of its instance, and what became of
//! it before. Pure.

use nexushub_proto::procmgr::{self, InstanceStatus, exit::How};
use serde::Serialize;

use crate::{
    platform::{history::Moment, view},
    record::rfc3339,
};

/// In the names of the contract's own fields.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Details {
    /// Whether procmgr can be heard now; otherwise this is what it said last.
    current: bool,
    state: &'static str,
    reason: String,
    since: String,
    /// Of what runs, also where the contract's fields tell of a newer release that doesn't; so the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<u32>,
    /// Whether requests are sent to it.
    routed: bool,
    /// One health check failed.
    flagged: bool,
    /// Counts the starts.
    generation: u64,
    /// Starts since the last stable run.
    restarts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_exit: Option<Exit>,
    release: String,
    driver: String,
    not_enforced: Vec<String>,
    /// The generation that is to take this one's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
    /// Generations that end once their requests have.
    draining: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<procmgr::Usage>,
    /// Changes of state with their reasons, the newest first.
    history: Vec<Moment>,
}

/// How a generation ended: one of the three.
#[derive(Debug, Default, Serialize)]
struct Exit {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<bool>,
    at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Next {
    generation: u64,
    reason: String,
    restarts: u32,
    release: String,
}

impl Details {
    /// Of an instance, if procmgr has one; what it uses is added when it is known.
    pub(crate) fn of(live: Option<&InstanceStatus>, current: bool, history: Vec<Moment>) -> Self {
        let Some(live) = live else { return Self { current, state: "unknown", history, ..Self::default() } };
        let moment = |unix_ms: i64| (unix_ms > 0).then(|| rfc3339(unix_ms));
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            current,
            state: view::state(live),
            reason: view::reason(live),
            since: moment(live.since_unix_ms).unwrap_or_default(),
            process_id: Some(live.pid).filter(|pid| *pid != 0),
            routed: live.routed,
            flagged: live.flagged,
            generation: live.generation,
            restarts: live.restarts,
            retry_at: moment(live.retry_unix_ms),
            last_exit: live.last_exit.as_ref().map(exit),
            release: name(&live.release),
            driver: live.driver.clone(),
            not_enforced: live.not_enforced.clone(),
            next: live.next.as_ref().map(|next| Next {
                generation: next.generation,
                reason: next.reason.clone(),
                restarts: next.restarts,
                release: name(&next.release),
            }),
            draining: live.draining.iter().map(|draining| draining.generation).collect(),
            usage: None,
            history,
        }
    }

    pub(crate) fn using(self, usage: Option<procmgr::Usage>) -> Self {
        Self { usage, ..self }
    }
}

fn exit(exit: &procmgr::Exit) -> Exit {
    let told = Exit { at: rfc3339(exit.unix_ms), ..Exit::default() };
    match exit.how {
        Some(How::Code(code)) => Exit { code: Some(code), ..told },
        Some(How::Signal(signal)) => Exit { signal: Some(signal), ..told },
        Some(How::Lost(lost)) => Exit { lost: Some(lost), ..told },
        None => told,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::procmgr::{DrainingGeneration, NextGeneration, State};

    use super::*;

    #[test]
    fn all_that_procmgr_says_is_told() {
        let last_exit = Some(procmgr::Exit { how: Some(How::Signal(9)), unix_ms: 1000 });
        let next = NextGeneration { generation: 3, release: "/r/new".into(), ..Default::default() };
        let live = InstanceStatus {
            state: State::Failed.into(),
            reason: "killed by signal 9".into(),
            since_unix_ms: 2000,
            retry_unix_ms: 3000,
            restarts: 1,
            generation: 2,
            pid: 42,
            routed: true,
            release: "/r/old".into(),
            last_exit,
            next: Some(next),
            draining: vec![DrainingGeneration { generation: 1, ..Default::default() }],
            ..Default::default()
        };
        let usage = procmgr::Usage { memory_bytes: 7, ..Default::default() };
        let told = Details::of(Some(&live), true, Vec::new()).using(Some(usage));
        let told = serde_json::to_value(told).unwrap();
        assert_eq!((told["state"].as_str(), told["generation"].as_u64()), (Some("failed"), Some(2)));
        assert_eq!(told["since"], "1970-01-01T00:00:02.000Z");
        assert_eq!(told["retryAt"], "1970-01-01T00:00:03.000Z");
        let exit = serde_json::json!({"signal": 9, "at": "1970-01-01T00:00:01.000Z"});
        assert_eq!((&told["lastExit"], told["release"].as_str()), (&exit, Some("old")));
        assert_eq!((told["next"]["release"].as_str(), told["draining"][0].as_u64()), (Some("new"), Some(1)));
        assert_eq!(told["usage"]["memoryBytes"], 7);
        assert_eq!((&told["processId"], &told["routed"]), (&serde_json::json!(42), &true.into()));
        let none = serde_json::to_value(Details::of(None, false, Vec::new())).unwrap();
        assert_eq!((none["state"].as_str(), none.get("usage")), (Some("unknown"), None));
    }
}
