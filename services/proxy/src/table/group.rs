//! Instances that share their requests: each goes to who has the fewest under way. Who fails again and again is left out for a
//! while, and then tried with one request; never all of them. Pure, but for the counts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use super::{Entry, Route};
use crate::clock;

/// Failures in a row after which a backend is left out.
const FAILURES: u32 = 5;
/// How long, the first time; twice as long with each trial that fails.
const FIRST_MS: u64 = 1_000;
/// How long at most.
const LONGEST_MS: u64 = 30_000;

/// How a backend stands with those who send to it.
///
/// ```text
/// in --failures in a row--> out --its time is over: one request--> on trial --it failed--> out, for longer
///  ^------------------------------- an answer -----------------------------|
/// ```
#[derive(Debug, Default)]
pub(crate) struct Standing {
    failures: AtomicU32,
    trials: AtomicU32,
    /// Until when it is out; 0 = it is in.
    until_ms: AtomicU64,
    on_trial: AtomicBool,
}

impl Standing {
    /// It gave an answer.
    pub(crate) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.trials.store(0, Ordering::Relaxed);
            self.until_ms.store(0, Ordering::Relaxed);
        }
    }

    /// It gave none. For how long it is left out from now on, if it is.
    pub(crate) fn failed(&self, now_ms: u64) -> Option<u64> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if !self.is_out() {
            return (failures >= FAILURES).then(|| self.leave_out(now_ms));
        }
        // Requests that were under way when it was left out say nothing new.
        self.on_trial.swap(false, Ordering::Relaxed).then(|| {
            self.trials.fetch_add(1, Ordering::Relaxed);
            self.leave_out(now_ms)
        })
    }

    fn leave_out(&self, now_ms: u64) -> u64 {
        let pause = self.pause_ms();
        self.until_ms.store(now_ms + pause, Ordering::Relaxed);
        pause
    }

    fn pause_ms(&self) -> u64 {
        (FIRST_MS << self.trials.load(Ordering::Relaxed).min(16)).min(LONGEST_MS)
    }

    /// Whether it is left out, or on trial.
    pub(crate) fn is_out(&self) -> bool {
        self.until_ms.load(Ordering::Relaxed) != 0
    }

    /// Whether a trial is due; who is told so makes it. One that nobody hears of again is followed by another.
    fn begins_trial(&self, now_ms: u64) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        if until == 0 || now_ms < until {
            return false;
        }
        let next = now_ms + self.pause_ms();
        let mine = self.until_ms.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            self.on_trial.store(true, Ordering::Relaxed);
        }
        mine
    }
}

/// Who gets the requests of a host name and a path.
#[derive(Debug)]
pub(crate) struct Group {
    /// By rank; one at least.
    members: Box<[Arc<Route>]>,
    /// Where the next search for the least busy begins.
    next: AtomicUsize,
}

impl Group {
    /// Of those who claim the same, by rank: the first, and who shares with it.
    pub(super) fn new(claimants: &[&Arc<Route>]) -> Option<Self> {
        let (first, others) = claimants.split_first()?;
        let group = &first.entry.rules.group;
        let shares = |other: &&&Arc<Route>| !group.is_empty() && other.entry.rules.group == *group;
        let members =
            std::iter::once(first).chain(others.iter().filter(shares)).map(|route| Arc::clone(route));
        Some(Self { members: members.collect(), next: AtomicUsize::new(0) })
    }

    /// Its first member; the only one of most.
    pub(crate) fn first(&self) -> &Arc<Route> {
        &self.members[0]
    }

    /// By which id access to it is asked for, whoever of it answers: the first of all.
    pub(crate) fn audience(&self) -> &str {
        let ids = self.members.iter().map(|member| member.entry.id.as_str());
        ids.min().unwrap_or_default()
    }

    /// Who gets a request that those in `tried` could not take: the least busy of those who can; else somebody who may be
    /// waited for.
    pub(crate) fn pick(&self, tried: &[Arc<Route>], waits: impl Fn(&Entry) -> bool) -> &Arc<Route> {
        if self.members.len() == 1 {
            return self.first();
        }
        self.pick_at(clock::now_ms(), tried, waits)
    }

    fn pick_at(&self, now_ms: u64, tried: &[Arc<Route>], waits: impl Fn(&Entry) -> bool) -> &Arc<Route> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let is_tried = |route: &Route| tried.iter().any(|one| one.entry.id == route.entry.id);
        let able = || self.members_from(start).filter(|route| route.takes_requests());
        if let Some(due) = able().find(|route| !is_tried(route) && route.standing.begins_trial(now_ms)) {
            return due;
        }
        let busy = |route: &&Arc<Route>| route.app.as_ref().map_or(0, |pool| pool.under_way());
        let fit = able().filter(|route| !is_tried(route) && !route.standing.is_out()).min_by_key(busy);
        let fit = fit.or_else(|| able().filter(|route| !is_tried(route)).min_by_key(busy));
        let fit = fit.or_else(|| able().next());
        let coming = || self.members.iter().find(|route| waits(&route.entry));
        fit.or_else(coming).unwrap_or_else(|| self.first())
    }

    /// Whether anybody can take requests now.
    pub(super) fn is_able(&self) -> bool {
        self.members.iter().any(|route| route.takes_requests())
    }

    /// All members, beginning with this one: of those who are equally busy the first is taken.
    fn members_from(&self, start: usize) -> impl Iterator<Item = &Arc<Route>> {
        let (late, early) = self.members.split_at(start % self.members.len());
        early.iter().chain(late)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        pool::Limits,
        rules::Rules,
        table::{
            Change, Pause, State, Table,
            tests::{idle, running},
        },
    };

    fn member(entry: Entry) -> Entry {
        Entry { rules: Rules { group: "g".into(), ..Rules::default() }, ..entry }
    }

    fn table(entries: Vec<Entry>) -> Table {
        Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true })
    }

    fn three() -> Table {
        table(["a", "b", "c"].map(|id| member(running(id, "shop", 1))).to_vec())
    }

    fn picked<'a>(table: &'a Table, now_ms: u64, tried: &[Arc<Route>]) -> &'a str {
        let group = table.find("shop", "/").unwrap();
        &group.pick_at(now_ms, tried, |entry| entry.state == State::Starting).entry.id
    }

    /// Who gets so many requests at this time.
    fn turns(table: &Table, now_ms: u64, number: usize) -> String {
        (0..number).map(|_| picked(table, now_ms, &[])).collect()
    }

    fn fail(table: &Table, id: &str, now_ms: u64, times: u32) -> Option<u64> {
        let standing = &table.by_id(id).unwrap().standing;
        (0..times).fold(None, |told, _| standing.failed(now_ms).or(told))
    }

    #[test]
    fn the_equally_busy_take_turns_and_who_was_tried_or_is_not_there_is_passed_over() {
        let table = three();
        assert_eq!(turns(&table, 0, 6), "abcabc");
        let tried = [Arc::clone(table.by_id("a").unwrap()), Arc::clone(table.by_id("b").unwrap())];
        assert_eq!([picked(&table, 0, &tried), picked(&table, 0, &tried)], ["c", "c"]);
        let paused = Entry {
            pause: Some(Pause { message: String::new(), closed: false }),
            ..member(running("b", "shop", 1))
        };
        let table =
            table.apply(Change::put(paused)).apply(Change::put(member(idle("c", "shop", State::Failed, ""))));
        assert_eq!(turns(&table, 0, 3), "aaa");
        assert!(table.is_shared("b") && !table.is_shared("nobody"));
    }

    #[tokio::test]
    async fn the_least_busy_gets_the_next_request() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = table(["a", "b"].map(|id| member(running(id, "shop", port))).to_vec());
        let busy = table.by_id("a").unwrap().app.as_ref().unwrap().take().await.unwrap();
        assert_eq!(turns(&table, 0, 4), "bbbb");
        drop(busy);
        assert!(turns(&table, 0, 2).contains('a'));
    }

    #[test]
    fn who_is_coming_up_is_waited_for_only_if_nobody_can_take_requests() {
        let table = table(vec![
            member(idle("a", "shop", State::Failed, "")),
            member(idle("b", "shop", State::Starting, "")),
            member(running("c", "shop", 1)),
        ]);
        assert_eq!(turns(&table, 0, 2), "cc");
        let table = table.apply(Change::put(member(idle("c", "shop", State::Failed, ""))));
        assert_eq!((turns(&table, 0, 2).as_str(), table.is_shared("b")), ("bb", false));
    }

    #[test]
    fn who_fails_five_times_in_a_row_is_left_out_and_then_tried_with_one_request() {
        let table = three();
        assert_eq!((fail(&table, "a", 0, 4), fail(&table, "a", 0, 1)), (None, Some(1_000)));
        assert!(!turns(&table, 999, 6).contains('a'));
        assert_eq!(fail(&table, "a", 500, 9), None, "what was under way says nothing new");
        assert_eq!(turns(&table, 1_000, 6).matches('a').count(), 1);
        assert_eq!(fail(&table, "a", 1_100, 1), Some(2_000));
        assert!(!turns(&table, 3_099, 6).contains('a'));
        assert_eq!(picked(&table, 3_100, &[]), "a");
        table.by_id("a").unwrap().standing.answered();
        assert_eq!(turns(&table, 3_101, 6).matches('a').count(), 2);
        assert_eq!(fail(&table, "a", 9_000, 5), Some(1_000), "an answer clears what was before");
    }

    #[test]
    fn a_trial_that_nobody_hears_of_again_is_followed_by_another_and_pauses_have_an_end() {
        let table = three();
        fail(&table, "a", 0, 5);
        for now in [1_000, 2_000, 3_000] {
            assert_eq!(turns(&table, now, 3).matches('a').count(), 1, "{now}");
        }
        let mut now = 4_000;
        let mut longest = 0;
        for _ in 0..20 {
            assert_eq!(picked(&table, now, &[]), "a");
            longest = fail(&table, "a", now, 1).unwrap();
            now += longest;
        }
        assert_eq!(longest, LONGEST_MS);
    }

    #[test]
    fn never_are_all_of_them_left_out_nor_is_one_that_is_alone() {
        let table = three();
        for id in ["a", "b", "c"] {
            assert_eq!(fail(&table, id, 0, 5), Some(1_000));
        }
        assert_eq!(turns(&table, 1, 6), "abcabc");
        let alone = self::table(vec![member(running("a", "shop", 1))]);
        fail(&alone, "a", 0, 5);
        assert_eq!(turns(&alone, 1, 2), "aa");
    }

    #[test]
    fn a_new_generation_stands_well_and_a_change_that_leaves_the_place_alone_changes_nothing() {
        let table = three();
        fail(&table, "a", 0, 5);
        let renamed =
            table.apply(Change::put(Entry { reason: "x".into(), ..member(running("a", "shop", 1)) }));
        assert!(renamed.by_id("a").unwrap().standing.is_out());
        let next = table.apply(Change::put(Entry { generation: 2, ..member(running("a", "shop", 1)) }));
        assert!(!next.by_id("a").unwrap().standing.is_out());
    }

    #[test]
    fn who_says_another_group_or_none_shares_nothing() {
        let other =
            Entry { rules: Rules { group: "h".into(), ..Rules::default() }, ..running("b", "shop", 1) };
        let table = table(vec![member(running("a", "shop", 1)), other, running("c", "shop", 1)]);
        assert_eq!(turns(&table, 0, 4), "aaaa");
    }
}
