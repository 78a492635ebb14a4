//! Who is asked for what `top` shows: each daemon in a task of its own, beside the loop that reads keys. One that hangs costs nothing
//! but its own news, and how old those are is told. Of a platform elsewhere debug-api tells all of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nexushub_chassis::retry::Retry;
use nexushub_proto::procmgr::InstanceStatus;
use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        watch,
    },
    task::JoinSet,
    time::MissedTickBehavior,
};

use crate::{
    failure::Failure,
    far::{self, feed::Feed},
    hub::Hub,
    instances, logs, metrics,
    place::Place,
    session::Session,
};

/// How often everything is asked.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);
/// What is older than that is not what is: it was asked for anew meanwhile, and did not come.
const STALE: Duration = Duration::from_secs(3);
/// Lines of a log that are asked for.
const LINES: u32 = 100;
/// Answers that may wait to be shown.
const HELD: usize = 8;

/// An answer, or why there is none.
#[derive(Debug)]
pub(super) enum Heard {
    Metrics(Result<String, Failure>),
    Apps(Result<Vec<InstanceStatus>, Failure>),
    /// The end of the log of the app of this id.
    Log(String, Vec<String>),
}

/// The tasks, which end with this.
pub(super) struct Asking {
    heard: Receiver<Heard>,
    log: watch::Sender<Option<String>>,
    _tasks: JoinSet<()>,
}

impl Asking {
    /// Begins to ask a platform.
    pub(super) fn begin(hub: &Hub) -> Result<Self, Failure> {
        let (sender, heard) = mpsc::channel(HELD);
        let (log, wanted) = watch::channel(None);
        let tasks = match hub {
            Hub::Here(place) => here(place, sender, wanted),
            Hub::Elsewhere(session) => elsewhere(session, sender, wanted)?,
        };
        Ok(Self { heard, log, _tasks: tasks })
    }

    /// Whose log is wanted from now on; none = nobody's.
    pub(super) fn log_of(&self, id: Option<&str>) {
        self.log.send_if_modified(|wanted| {
            let other = wanted.as_deref() != id;
            if other {
                *wanted = id.map(str::to_owned);
            }
            other
        });
    }

    /// The next answer. Nothing is lost when it is not waited for to the end.
    pub(super) async fn heard(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }
}

/// The daemons of this machine.
fn here(place: &Place, heard: Sender<Heard>, wanted: watch::Receiver<Option<String>>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let place = Arc::new(place.clone());
    let (proxy, procmgr) = (Arc::clone(&place), Arc::clone(&place));
    tasks.spawn(again(heard.clone(), move || {
        let place = Arc::clone(&proxy);
        async move { Heard::Metrics(metrics::text(&place).await) }
    }));
    tasks.spawn(again(heard.clone(), move || {
        let place = Arc::clone(&procmgr);
        async move { Heard::Apps(instances::list(&place).await) }
    }));
    tasks.spawn(follow_log(heard, wanted, move |id: String| {
        let place = Arc::clone(&place);
        async move { logs::last_lines(&place, &id, LINES).await }
    }));
    tasks
}

/// debug-api of a platform elsewhere. Its stream tells of the apps, which keeps none of them alive; what it told last holds while it is
/// open.
fn elsewhere(
    session: &Arc<Session>,
    heard: Sender<Heard>,
    wanted: watch::Receiver<Option<String>>,
) -> Result<JoinSet<()>, Failure> {
    let mut tasks = JoinSet::new();
    let (counter, reader) = (Arc::new(session.client()?), Arc::new(session.client()?));
    let mut feed = Feed::new(session.client()?, None, session.zone());
    let (teller, told) = watch::channel(None);
    tasks.spawn(async move {
        let mut retry = Retry::default();
        loop {
            let said = feed.next().await.map(|known| known.list());
            let broke = said.is_err();
            teller.send_replace(Some(said));
            if broke {
                tokio::time::sleep(retry.wait()).await;
            } else {
                retry.reset();
            }
        }
    });
    tasks.spawn(again(heard.clone(), move || {
        let mut told = told.clone();
        async move {
            let said = told.wait_for(Option::is_some).await.ok().and_then(|said| said.clone());
            Heard::Apps(said.unwrap_or_else(|| Err(Failure::new("nobody tells", ""))))
        }
    }));
    tasks.spawn(again(heard.clone(), move || {
        let client = Arc::clone(&counter);
        async move { Heard::Metrics(far::counted(&client).await) }
    }));
    tasks.spawn(follow_log(heard, wanted, move |id: String| {
        let client = Arc::clone(&reader);
        async move { far::log::last_lines(&client, &id, LINES).await }
    }));
    Ok(tasks)
}

/// Asks again and again, one question at a time.
async fn again<F: Future<Output = Heard>>(heard: Sender<Heard>, question: impl Fn() -> F) {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if heard.send(question().await).await.is_err() {
            return;
        }
    }
}

/// Asks for the log that is wanted; another one that is wanted does not wait for the answer about the last.
async fn follow_log<F: Future<Output = Vec<String>>>(
    heard: Sender<Heard>,
    mut wanted: watch::Receiver<Option<String>>,
    lines: impl Fn(String) -> F,
) {
    loop {
        let id = wanted.borrow_and_update().clone();
        let telling = async {
            let Some(id) = id else { return std::future::pending().await };
            let told = || {
                let (id, lines) = (id.clone(), lines(id.clone()));
                async move { Heard::Log(id, lines.await) }
            };
            again(heard.clone(), told).await;
        };
        tokio::select! {
            () = telling => return,
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// What one daemon said last, and when.
#[derive(Debug)]
pub(super) struct News<T> {
    from: &'static str,
    what: &'static str,
    pub(super) last: T,
    at: Instant,
    trouble: Option<String>,
}

impl<T: Default> News<T> {
    pub(super) fn none(from: &'static str, what: &'static str, now: Instant) -> Self {
        Self { from, what, last: T::default(), at: now, trouble: None }
    }

    /// An answer; without one, what was known stays.
    pub(super) fn take(&mut self, now: Instant, said: Result<T, Failure>) {
        match said {
            Ok(said) => (self.last, self.at, self.trouble) = (said, now, None),
            Err(failure) => self.trouble = Some(failure.message),
        }
    }

    /// What is wrong with them, for people; none where they are of now.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        let age = now.duration_since(self.at);
        if age < STALE {
            return self.trouble.clone();
        }
        let silent = || format!("{} does not answer", self.from);
        let why = self.trouble.clone().unwrap_or_else(silent);
        Some(format!("{} as of {} s ago: {why}", self.what, age.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_log_that_does_not_come_is_let_go_of_for_another() {
        let (sender, heard) = mpsc::channel(HELD);
        let (log, wanted) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_log(sender, wanted, async |id: String| match id.as_str() {
            "hangs" => std::future::pending().await,
            other => vec![format!("line of {other}")],
        }));
        let mut asking = Asking { heard, log, _tasks: tasks };
        asking.log_of(Some("hangs"));
        tokio::task::yield_now().await;
        asking.log_of(Some("well"));
        for _ in 0..2 {
            let Heard::Log(of, lines) = asking.heard().await else { unreachable!("nobody else is asked") };
            assert_eq!((of.as_str(), lines), ("well", vec!["line of well".to_owned()]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_keeps_nobody_else_from_being_heard() {
        let (sender, mut heard) = mpsc::channel(HELD);
        let mut tasks = JoinSet::new();
        tasks.spawn(again(sender.clone(), async || std::future::pending().await));
        tasks.spawn(again(sender, async || Heard::Metrics(Ok("counted".to_owned()))));
        for _ in 0..3 {
            assert!(matches!(heard.recv().await.unwrap(), Heard::Metrics(Ok(text)) if text == "counted"));
        }
    }

    #[test]
    fn news_are_kept_and_say_how_old_they_are() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut news = News::none("procmgr", "apps", begin);
        assert_eq!(news.trouble(at(1)), None, "it was asked just now");
        news.take(at(2), Ok(vec![1]));
        assert_eq!(news.trouble(at(4)), None);
        assert_eq!(news.trouble(at(14)).unwrap(), "apps as of 12 s ago: procmgr does not answer");
        news.take(at(14), Err(Failure::new("procmgr: not reachable", "")));
        assert_eq!(news.trouble(at(14)).unwrap(), "apps as of 12 s ago: procmgr: not reachable");
        assert_eq!(news.last, [1]);
        news.take(at(15), Ok(vec![2]));
        assert_eq!((news.trouble(at(15)), news.last), (None, vec![2]));
    }
}
