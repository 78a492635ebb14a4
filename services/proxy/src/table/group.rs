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
