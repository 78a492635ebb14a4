//! What of access is worth a line that lasts: who was refused what, who signed in and out. Whoever wants may be refused as often as
//! he likes, and must not push out of the log what others did: of what anybody may do without end so many are noted and the rest
//! is counted.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use nexushub_chassis::audit::{self, Audit, Outcome};

use crate::clock;

/// Of refusals, and of sessions that go on, so many of each are noted at once, and how many milliseconds later there is room for
/// one more.
const AT_ONCE: u64 = 60;
const EACH_MS: u64 = 10_000;
/// Of what somebody was refused so many bytes are noted: what is refused, anybody may write.
const OBJECT: usize = 120;

/// A session's next access token, which its client may ask for as often as it likes.
pub(crate) const REFRESH: &str = "token.refresh";

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// "access.refuse", "session.sign_in" and so on.
    pub(crate) what: &'static str,
    /// The user's or the caller's id, where one is known.
    pub(crate) who: &'a str,
    /// What it is about.
    pub(crate) object: &'a str,
    pub(crate) from: IpAddr,
    pub(crate) outcome: Outcome,
    /// What else there is to say.
    pub(crate) detail: &'a str,
}

/// The proxy's part of the audit log.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    audit: Audit,
    refusals: Room,
    refreshes: Room,
}

/// Room for what is bounded.
#[derive(Debug, Default)]
struct Room {
    /// When all of it is there again, as milliseconds of `clock`.
    whole_ms: AtomicU64,
    /// Events that were not noted since the last one that was.
    passed_over: AtomicU64,
}

impl Trail {
    /// Notes in this log.
    pub(crate) fn new(audit: Audit) -> Self {
        Self { audit, ..Self::default() }
    }

    /// Notes it.
    pub(crate) fn note(&self, event: &Event<'_>) {
        let (mut detail, mut object) = (event.detail.to_owned(), event.object);
        if let Some(room) = self.room(event) {
            let Some(passed_over) = room.take(clock::about_ms()) else { return };
            if passed_over > 0 {
                detail.push_str(&format!(" ({passed_over} more before this one were not noted)"));
            }
            object = &object[..object.floor_char_boundary(OBJECT)];
        }
        let Event { what, who, from, outcome, .. } = *event;
        let (who, object, from) = (who.to_owned(), object.to_owned(), from.to_string());
        self.audit.note(audit::Event { who, what, object, from, outcome, detail });
    }

    /// The room that this kind of event needs, if it is one that anybody may cause without end.
    fn room(&self, event: &Event<'_>) -> Option<&Room> {
        match event.outcome {
            Outcome::Done if event.what == REFRESH => Some(&self.refreshes),
            Outcome::Done => None,
            _ => Some(&self.refusals),
        }
    }
}

impl Room {
    /// Takes some, if there is any: how many before this one found none.
    fn take(&self, now_ms: u64) -> Option<u64> {
        let take = |whole: u64| {
            let whole = whole.max(now_ms);
            (whole + EACH_MS - now_ms <= AT_ONCE * EACH_MS).then_some(whole + EACH_MS)
        };
        if self.whole_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.passed_over.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.passed_over.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_refusals_so_many_are_noted_and_then_one_each_ten_seconds() {
        let room = Room::default();
        let noted = |now_ms: u64, asked: usize| (0..asked).filter(|_| room.take(now_ms).is_some()).count();
        assert_eq!(noted(10_000, 1000), 60);
        assert_eq!(noted(19_999, 1000), 0);
        assert_eq!(noted(30_000, 1000), 2);
        assert_eq!(noted(1_000_000, 1000), 60, "after a while there is room for all again");
    }

    #[test]
    fn what_was_passed_over_is_counted_in_the_next_that_is_noted_and_what_was_done_is_always_noted() {
        let state = tempfile::tempdir().expect("a folder");
        let audit = Audit::of(state.path(), "proxy");
        let trail = Trail::new(audit);
        let long = "shop/".repeat(100);
        let event = |outcome| Event {
            what: "access.refuse",
            who: "",
            object: &long,
            from: IpAddr::from([192, 0, 2, 7]),
            outcome,
            detail: "Unauthorized",
        };
        (0..100).for_each(|_| trail.note(&event(Outcome::Refused)));
        trail.note(&event(Outcome::Done));
        trail.refusals.whole_ms.store(0, Ordering::Relaxed);
        trail.note(&event(Outcome::Refused));
        drop(trail);
        let told = audit::tail(&audit::folder(state.path()), 1000).expect("it is read");
        assert_eq!(told.len(), 62);
        assert_eq!(told[61].detail, "Unauthorized (40 more before this one were not noted)");
        assert_eq!(
            (told[60].object.len(), told[61].object.len()),
            (500, OBJECT),
            "what anybody may write is short"
        );
    }
}
