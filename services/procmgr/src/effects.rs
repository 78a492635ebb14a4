//! What the owner task has done for it, on tasks and threads beside it: examinations, starts, health checks, stops. Each reports
//! back as an event; none decides anything.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nexushub_chassis::launch::{
    clock::unix_ms,
    secret::{self, AppKey},
};
use nexushub_shim::{
    control::{Reply, Request},
    identity::{self, Identity},
    record::Record,
    spec::Spec,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc, oneshot},
};

use crate::{
    adopt,
    clock::Ms,
    control,
    data::{self, Bound},
    desired::{Desired, Egress},
    driver::{self, Driver, Form, Plan, judge_release, measures_data, no_data_to_give, no_id_to_give},
    egress,
    env::{self, Surroundings},
    exit::{Exit, How},
    generation::{Failure, Generation, Order, Place},
    health::Check,
    ids::InstanceId,
    kills, last_words,
    limits::Limits,
    manager::Event,
    note::Note,
    orders::Orders,
    ports::bind_reservation,
    probe::{self, Question},
    process,
    slots::{self, Slots},
    state::Probed,
};

/// Longest wait for a shim to take an order.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to learn how a generation ended whose lock is still held.
const RETRY: Duration = Duration::from_secs(1);

/// Learns whether something could be kept.
pub(crate) type Kept = oneshot::Sender<std::io::Result<()>>;

/// What the owner task may ask for. Nothing here waits for an app, a shim or a deletion: of the work itself only the binding of
/// a port and the renaming of surplus folders are done before the call returns, since the next decision builds on them.
pub(crate) trait Effects: Send + 'static {
    /// What stands for a port's reservation.
    type Reservation;
    /// Makes the kernel's part of a reservation.
    fn reserve(&self, port: u16) -> std::io::Result<Self::Reservation>;
    /// Finds out what lives of an instance.
    fn examine(&self, id: &InstanceId);
    /// Starts the next generation, on a port if the driver needs one.
    fn start(&self, desired: &Arc<Desired>, driver: Arc<dyn Driver>, port: Option<(u16, Self::Reservation)>);
    /// Reports the end of a generation, whenever that is.
    fn await_end(&self, run: &Arc<Generation>);
    /// Checks its health; `judge` also whose listener answers, where that can be a stranger's.
    fn probe(&self, run: &Arc<Generation>, check: Check, judge: bool);
    /// Leaves word that it was healthy.
    fn mark_healthy(&self, run: &Arc<Generation>);
    /// Tells it to end.
    fn stop(&self, run: &Arc<Generation>, deadline: Duration);
    /// Ends it by force, with its shim if that doesn't answer.
    fn kill(&self, run: &Arc<Generation>);
    /// Puts surplus folders of instances that are gone out of the way, at once, so that no later start meets one that is being
    /// deleted; deletes them in time.
    fn sweep(&self, known: &dyn Fn(&str) -> bool);
    /// Keeps the orders on disk; who waits for that is told.
    fn keep(&self, orders: &Orders, reply: Option<Kept>);
    /// Keeps the orders on disk, of which one has an instance fall asleep; reports that.
    fn keep_asleep(&self, orders: &Orders, id: &InstanceId);
    /// A number in 0..1.
    fn jitter(&self) -> f64;
}

/// What a start needs beside the instance.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// What every app is told.
    pub around: Surroundings,
    /// The bounds of instances without bounds of their own.
    pub limits: Limits,
    /// The health check of instances without one of their own.
    pub check: Check,
    /// From SIGTERM to SIGKILL.
    pub stop_ms: Ms,
    /// From which the apps' secrets are derived.
    pub key: AppKey,
    /// Size of a segment.
    pub log_segment_bytes: u64,
    /// Where orders are kept.
    pub orders: PathBuf,
    /// Folders of removed instances kept.
    pub keep_removed: usize,
    /// The program that looks after data which are not the platform's own user's.
    pub keeper: PathBuf,
}

/// The real ones.
#[derive(Clone)]
pub(crate) struct Os {
    place: Arc<Place>,
    terms: Arc<Terms>,
    events: mpsc::Sender<Event>,
    /// Starts and examinations under way at once.
    busy: Arc<Semaphore>,
    /// Which boxes have which of the ids that an ordinary user may give.
    slots: Slots,
    children: Arc<Mutex<Vec<Child>>>,
    keeping: Arc<Keeping>,
}

/// How often orders were to be kept, and which of them are: a later one is never replaced by an earlier.
#[derive(Debug, Default)]
struct Keeping {
    asked: AtomicU64,
    done: Mutex<u64>,
}

impl Os {
    /// Effects that report to `events`. Starts the task that reaps shims; needs the runtime.
    pub(crate) fn new(
        place: Place,
        terms: Terms,
        at_once: usize,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<Self> {
        let children: Arc<Mutex<Vec<Child>>> = Arc::default();
        let (reaped, mut died) = (Arc::clone(&children), signal(SignalKind::child())?);
        tokio::spawn(async move {
            while died.recv().await.is_some() {
                reap(&reaped, None);
            }
        });
        let busy = Arc::new(Semaphore::new(at_once.max(1)));
        let (place, terms, keeping) = (Arc::new(place), Arc::new(terms), Arc::default());
        Ok(Self { place, terms, events, busy, slots: Slots::default(), children, keeping })
    }

    async fn report(&self, event: Event) {
        // An error says that the owner is gone: procmgr is ending.
        let _ = self.events.send(event).await;
    }

    /// Runs something that blocks, within the bound on how many do.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _place = self.busy.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Keeps orders on disk, then tells whether they could be.
    fn keep_and(&self, orders: &Orders, tell: impl FnOnce(std::io::Result<()>) + Send + 'static) {
        let number = self.keeping.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let (os, orders) = (self.clone(), orders.clone());
        tokio::task::spawn_blocking(move || {
            let mut done = os.keeping.done.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = if *done > number { Ok(()) } else { orders.save(&os.terms.orders) };
            match &kept {
                Ok(()) => *done = (*done).max(number),
                Err(error) => tracing::error!(error = %error, "orders could not be kept"),
            }
            drop(done);
            tell(kept);
        });
    }

    fn order(
        &self,
        desired: &Desired,
        driver: &dyn Driver,
        port: Option<(u16, OwnedFd)>,
    ) -> Result<Order, String> {
        judge_release(desired)?;
        let terms = &self.terms;
        let bounds = desired.limits_in_force(&terms.limits);
        let (limits, uid) = if driver.boxes() {
            (bounds, self.first_uid(&desired.id)?)
        } else {
            (Limits { log_bytes: bounds.log_bytes, ..Limits::default() }, None)
        };
        let way_out = self.way_out(desired, driver, uid)?;
        let (slot, no_slot) = self.slot(desired, driver)?;
        let data = data::resolved(&desired.data);
        if slot.is_none() {
            data::reclaim(&terms.keeper, &data)?;
        }
        let check = desired.health.apply(&terms.check);
        let program = driver.program(&Plan {
            desired,
            around: &terms.around,
            limits: &limits,
            check: &check,
            stop_ms: terms.stop_ms,
            uid,
            slot,
            way_out: way_out.map(|slot| self.place.router.way_out(slot)),
        });
        let inside = driver.inside(desired, &terms.around, port.as_ref().map(|(port, _)| *port));
        let own_secret = terms.key.app_secret(desired.id.as_str());
        let spec = Spec {
            instance: desired.id.to_string(),
            generation: 0,
            nonce: String::new(),
            dir: PathBuf::new(),
            log_dir: PathBuf::new(),
            log_budget_bytes: limits.log_bytes,
            segment_bytes: terms.log_segment_bytes,
            program: program.path,
            args: program.args,
            cwd: program.cwd,
            env: driver.env(env::of_app(&terms.around, desired, &inside, &own_secret)),
            boxed: program.form != Form::App,
            mapped: program.mapped,
            machine: program.form == Form::Machine,
            cgroups: Vec::new(),
        };
        let note = self.note(desired, driver, limits, (slot, no_slot));
        note.measured().iter().try_for_each(Bound::judge)?;
        Ok(Order {
            id: desired.id.clone(),
            host_limits: driver.host_limits(&note.limits),
            note,
            driver: driver.name(),
            release: desired.release.clone(),
            data: desired.data.clone(),
            way_out,
            port,
            spec,
        })
    }

    /// What is to be known again of a start with these bounds and this slot.
    fn note(
        &self,
        desired: &Desired,
        driver: &dyn Driver,
        limits: Limits,
        (slot, no_slot): (Option<u32>, Option<String>),
    ) -> Note {
        let own_secret = self.terms.key.app_secret(desired.id.as_str());
        Note {
            digest: desired.digest.clone(),
            secret_sha256: secret::hex(&secret::digest(&own_secret)),
            limits,
            not_enforced: driver.not_enforced().iter().cloned().chain(no_slot).collect(),
            data: data::resolved(&desired.data),
            keeper: slot.map(|_| self.terms.keeper.clone()),
            health: Some(desired.health.clone()),
            data_measured: limits.data_bytes > 0 && measures_data(driver.not_enforced()),
            started_unix: unix_ms(std::time::SystemTime::now()),
            ..Note::default()
        }
    }

    /// Which way out to the internet its box gets, if one.
    fn way_out(
        &self,
        desired: &Desired,
        driver: &dyn Driver,
        uid: Option<u32>,
    ) -> Result<Option<u32>, String> {
        match desired.egress {
            Egress::Internet if driver.boxes() => {
                uid.map(slots::number).map(Some).ok_or_else(egress::needs_root)
            }
            Egress::Internet | Egress::None => Ok(None),
        }
    }

    fn first_uid(&self, id: &InstanceId) -> Result<Option<u32>, String> {
        let place = &self.place;
        let uid = place.slots.as_ref().map(|slots| slots.first_uid(&place.instances(), id)).transpose();
        uid.map_err(|error| format!("its user ids: {error}"))
    }

    /// Its slot where an ordinary user can give its box ids of its own; or why it has none, for people.
    fn slot(&self, desired: &Desired, driver: &dyn Driver) -> Result<(Option<u32>, Option<String>), String> {
        let count = driver.slots();
        if count == 0 {
            return Ok((None, None));
        }
        let instances = self.place.instances();
        let why = no_id_to_give(desired, slots::has(&instances, &desired.id));
        let why = why.or_else(|| no_data_to_give(desired));
        if why.is_some() {
            return Ok((None, why));
        }
        let number = self.slots.number(&instances, &desired.id, count);
        let number = number.map_err(|error| format!("its user ids: {error}"))?;
        let none =
            || format!("own ids: it has the user's, since all {count} that there are to give are taken");
        Ok((number, number.is_none().then(none)))
    }

    /// Whether what it keeps is within its bound, where only looking tells.
    async fn judge_data(&self, run: &Generation) -> Probed {
        let Some(data) = run.data.clone() else { return Ok(()) };
        // What procmgr can't do while it is ending says nothing about the app.
        self.blocking(move || data.judge(Instant::now())).await.unwrap_or(Ok(()))
    }

    /// How many of its processes the kernel has killed at the bound on its memory, where it has one.
    async fn look(&self, run: &Arc<Generation>) -> u64 {
        if run.cgroups.is_empty() && run.driver != driver::KRUN {
            return 0;
        }
        let run = Arc::clone(run);
        let look = move || kills::count(&run.dir, &run.cgroups);
        tokio::task::spawn_blocking(look).await.unwrap_or(0)
    }

    async fn outlived(&self, run: &Arc<Generation>, kills: u64) {
        if kills > 0 {
            let run = Arc::clone(run);
            let _ = tokio::task::spawn_blocking(move || kills::outlived(&run.dir, kills)).await;
        }
    }

    async fn start_now(
        &self,
        desired: Arc<Desired>,
        driver: Arc<dyn Driver>,
        port: Option<(u16, OwnedFd)>,
    ) -> Result<Arc<Generation>, Failure> {
        let os = self.clone();
        let started = self.blocking(move || {
            let order = os.order(&desired, driver.as_ref(), port);
            let (run, child) = os.place.start(order.map_err(|why| Failure { number: 0, why })?)?;
            reap(&os.children, Some(child));
            Ok(Arc::new(run))
        });
        started.await.unwrap_or_else(|| Err(Failure { number: 0, why: "procmgr is ending".into() }))
    }

    /// Learns of the end from the shim itself; from what it left where it no longer answers.
    async fn ended(&self, run: &Arc<Generation>) -> Exit {
        loop {
            let told = match control::ask(&run.dir, &run.nonce, Request::Wait, None).await {
                Ok(control::Answer { reply: Reply::Exited(end), .. }) => Some(end),
                Ok(_) | Err(_) => None,
            };
            let (place, subject) = (Arc::clone(&self.place), Arc::clone(run));
            let look = move || match told {
                Some(_) => adopt::recorded(&subject).ok().flatten(),
                None => adopt::aftermath(&place, &subject),
            };
            match (tokio::task::spawn_blocking(look).await.ok().flatten(), told) {
                (Some(exit), _) => return exit,
                // Its shim says so, and says it only when all of the app is gone.
                (None, Some(end)) => return adopt::unrecorded(end),
                // It lives, or that can't be told now.
                (None, None) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// The end, with what it said last.
    async fn heard(&self, run: &Arc<Generation>, exit: Exit) -> Exit {
        let run = Arc::clone(run);
        let last_words = tokio::task::spawn_blocking(move || last_words::of(&run)).await.unwrap_or_default();
        Exit { last_words, ..exit }
    }

    /// When the shim is gone too, what is left of its cgroup goes.
    async fn clear_cgroup(&self, run: Arc<Generation>) {
        if let Err(error) = process::ended(run.shim).await {
            tracing::warn!(instance = %run.instance, generation = run.number, error = %error, "could not await the end of a shim");
            return;
        }
        let place = Arc::clone(&self.place);
        let clear = move || place.clear_cgroup(&run.instance, run.number, &run.dir);
        let _ = tokio::task::spawn_blocking(clear).await;
    }

    /// Whether the shim took the order. If it didn't, the matter isn't over: what doesn't end by its deadline is killed.
    async fn tell(&self, run: &Generation, request: Request) -> bool {
        let outcome = control::ask(&run.dir, &run.nonce, request, Some(ORDER_PATIENCE)).await;
        if let Err(error) = &outcome {
            tracing::debug!(instance = %run.instance, generation = run.number, error = %error, "its shim did not take an order");
        }
        outcome.is_ok()
    }
}

/// Reaps the shims that have ended. A new one is looked at as soon as it is among them: the signal of its end may have come
/// before it was.
fn reap(children: &Mutex<Vec<Child>>, new: Option<Child>) {
    let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
    children.extend(new);
    children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

impl Effects for Os {
    type Reservation = OwnedFd;

    fn reserve(&self, port: u16) -> std::io::Result<Self::Reservation> {
        bind_reservation(port)
    }

    fn examine(&self, id: &InstanceId) {
        let (os, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let (place, subject) = (Arc::clone(&os.place), id.clone());
            let asking = tokio::runtime::Handle::current();
            if let Some(examination) = os.blocking(move || adopt::examine(&place, &subject, &asking)).await {
                os.report(Event::Examined { id, examination }).await;
            }
        });
    }

    fn start(&self, desired: &Arc<Desired>, driver: Arc<dyn Driver>, port: Option<(u16, Self::Reservation)>) {
        let (os, id) = (self.clone(), desired.id.clone());
        let (desired, number) = (Arc::clone(desired), port.as_ref().map(|(port, _)| *port));
        tokio::spawn(async move {
            let result = os.start_now(desired, driver, port).await;
            os.report(Event::Started { id, port: number, result }).await;
        });
    }

    fn await_end(&self, run: &Arc<Generation>) {
        let (os, run) = (self.clone(), Arc::clone(run));
        tokio::spawn(async move {
            let exit = os.heard(&run, os.ended(&run).await).await;
            let abandoned = exit.how == How::Lost;
            os.report(Event::Ended { id: run.instance.clone(), generation: run.number, exit }).await;
            if !abandoned {
                os.clear_cgroup(run).await;
            }
        });
    }

    fn probe(&self, run: &Arc<Generation>, check: Check, judge: bool) {
        let (os, run) = (self.clone(), Arc::clone(run));
        tokio::spawn(async move {
            let question =
                Question { endpoint: run.endpoint.clone(), judge_for: judge.then_some(run.shim.pid) };
            let kills = os.look(&run).await; // before the question: what comes after it may be the end
            let result = match probe::ask(question, check).await {
                Ok(()) => {
                    os.outlived(&run, kills).await;
                    os.judge_data(&run).await
                }
                unhealthy => unhealthy,
            };
            os.report(Event::Probed { id: run.instance.clone(), generation: run.number, result }).await;
        });
    }

    fn mark_healthy(&self, run: &Arc<Generation>) {
        let run = Arc::clone(run);
        tokio::task::spawn_blocking(move || run.mark_healthy());
    }

    fn stop(&self, run: &Arc<Generation>, deadline: Duration) {
        let (os, run) = (self.clone(), Arc::clone(run));
        tokio::spawn(async move { os.tell(&run, Request::Stop(deadline)).await });
    }

    fn kill(&self, run: &Arc<Generation>) {
        let (os, run) = (self.clone(), Arc::clone(run));
        tokio::spawn(async move {
            if !os.tell(&run, Request::Kill).await {
                tokio::task::spawn_blocking(move || kill_shim(&run));
            }
        });
    }

    fn sweep(&self, known: &dyn Fn(&str) -> bool) {
        let surplus = self.place.retire(self.terms.keep_removed, known);
        if !surplus.is_empty() {
            tokio::task::spawn_blocking(move || {
                surplus.iter().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
            });
        }
    }

    fn keep(&self, orders: &Orders, reply: Option<Kept>) {
        // An error says that the caller is gone.
        self.keep_and(orders, move |kept| drop(reply.map(|reply| reply.send(kept))));
    }

    fn keep_asleep(&self, orders: &Orders, id: &InstanceId) {
        let (events, kept) = (self.events.clone(), Event::SleepKept(id.clone()));
        // An error says that the owner is gone: procmgr is ending.
        self.keep_and(orders, move |_| drop(events.blocking_send(kept)));
    }

    fn jitter(&self) -> f64 {
        f64::from(getrandom::u32().unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }
}
/// Kills a shim that doesn't do what it is told, if it still is the recorded process. Its app goes with it.
fn kill_shim(run: &Generation) {
    let Ok(Some(record)) = Record::read(&run.dir) else { return };
    if record.nonce == run.nonce && matches!(identity::verify(&record), Ok(Identity::Alive)) {
        let _ = kill(Pid::from_raw(run.shim.pid.cast_signed()), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    use super::*;
    use crate::{
        cgroup::Cgroups,
        config::Config,
        desired::{Isolation, tests::proto},
        driver::tests::with_sandbox,
        egress::Router,
    };

    fn os(state: &std::path::Path, slots: Option<Slots>) -> Os {
        let config = Config::default();
        let place = Place {
            state: state.to_owned(),
            boot_id: "boot".into(),
            shim: "/nonexistent/shim".into(),
            cgroups: Cgroups::default(),
            router: Router::new(state, config.egress_first),
            slots,
            keep: 3,
        };
        let terms = Terms {
            limits: config.app_limits(),
            check: config.check(),
            stop_ms: config.stop_ms(),
            around: Surroundings::new(
                &config,
                "yesterday.localhost",
                8443,
                std::path::Path::new("/nonexistent"),
            ),
            key: AppKey::from_hex(&"ab".repeat(32)).unwrap(),
            log_segment_bytes: config.log_segment_bytes,
            orders: state.join("orders.json"),
            keep_removed: 1,
            keeper: "/nonexistent/keeper".into(),
        };
        let (events, _) = mpsc::channel(1);
        let busy = Arc::new(Semaphore::new(1));
        Os {
            place: Arc::new(place),
            terms: Arc::new(terms),
            events,
            busy,
            slots: Slots::default(),
            children: Arc::default(),
            keeping: Arc::default(),
        }
    }

    #[test]
    fn a_box_is_ordered_with_its_bounds_its_own_user_ids_and_no_port_and_a_process_with_neither() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("r/bin/app");
        std::fs::create_dir_all(app.parent().unwrap()).unwrap();
        std::fs::copy("/bin/true", &app).unwrap();
        let release = dir.path().join("r").display().to_string();
        let limits = nexushub_proto::provider::Limits {
            memory_bytes: 1 << 20,
            log_bytes: 1 << 19,
            ..Default::default()
        };
        let limits = Some(limits);
        let instance = nexushub_proto::provider::Instance { release, limits, ..proto("a") };
        let desired = Desired::from_proto(instance, 1_000).unwrap();
        let drivers = with_sandbox(&["landlock: no"]);
        let order = |isolation, slots, port| {
            let driver = drivers.resolve(isolation).unwrap();
            os(dir.path(), slots).order(&desired, driver.as_ref(), port).unwrap()
        };
        let boxed = order(Isolation::Sandbox, Some(Slots::default()), None);
        assert!(boxed.spec.boxed && boxed.port.is_none() && boxed.driver == "sandbox");
        let own = Limits { memory_bytes: 1 << 20, log_bytes: 1 << 19, ..Config::default().app_limits() };
        assert_eq!(boxed.note.limits, own);
        assert_eq!(boxed.note.not_enforced[0], "landlock: no");
        let uid: std::ffi::OsString = slots::FIRST.to_string().into();
        assert!(boxed.spec.args.contains(&uid));
        assert!(boxed.spec.env.contains(&("PORT".into(), "80".into())));
        assert!(!order(Isolation::Sandbox, None, None).spec.args.contains(&uid), "an ordinary user has none");
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let process = order(Isolation::Process, Some(Slots::default()), Some((10_000, fd)));
        assert_eq!((process.spec.boxed, process.spec.program), (false, app));
        let only_its_log = Limits { log_bytes: 1 << 19, ..Limits::default() };
        assert_eq!((process.note.limits, process.note.not_enforced.len()), (only_its_log, 0));
        assert_eq!((process.spec.log_budget_bytes, boxed.spec.log_budget_bytes), (1 << 19, 1 << 19));
        assert!(process.spec.env.contains(&("PORT".into(), "10000".into())));
    }

    #[test]
    fn where_ids_can_be_given_away_a_box_has_one_until_there_are_none_left() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("r/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/true", bin.join("app")).unwrap();
        let drivers = with_sandbox(&["slots=1"]);
        let driver = drivers.resolve(Isolation::Sandbox).unwrap();
        let order = |id: &str| {
            let release = dir.path().join("r").display().to_string();
            let instance = nexushub_proto::provider::Instance { release, ..proto(id) };
            let desired = Desired::from_proto(instance, 1_000).unwrap();
            os(dir.path(), None).order(&desired, driver.as_ref(), None).unwrap()
        };
        let (has, lacks) = (order("a"), order("b"));
        assert!(has.spec.mapped && has.spec.args.windows(2).any(|two| two == ["--slot", "0"]));
        assert_eq!(has.note.keeper.as_deref(), Some(std::path::Path::new("/nonexistent/keeper")));
        assert!(
            !lacks.spec.mapped && !lacks.spec.args.contains(&"--slot".into()) && lacks.note.keeper.is_none()
        );
        assert_eq!((has.note.not_enforced.len(), lacks.note.not_enforced.len()), (0, 1));
        assert!(lacks.note.not_enforced[0].starts_with("own ids: it has the user's, since all 1 "));
        std::fs::set_permissions(bin, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        assert!(order("a").note.not_enforced[0].contains("chmod -R go+rX"));
    }

    #[test]
    fn a_shim_that_ended_before_it_was_noted_is_reaped_without_another_signal() {
        let gone = Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(gone.id().cast_signed());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let children = Mutex::default();
        reap(&children, Some(gone));
        assert!(children.lock().unwrap().is_empty());
        reap(&children, Some(Command::new("sleep").arg("60").spawn().unwrap()));
        let mut kept = std::mem::take(&mut *children.lock().unwrap());
        assert_eq!(kept.len(), 1, "what lives is kept");
        for child in &mut kept {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
