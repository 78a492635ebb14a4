//! How each kind of row is measured: every contender in turn within each run, the runs one after the other, so that whatever the
//! machine does meanwhile it does to all of them.

use std::{io, net::SocketAddr, time::Duration};

use rustls_pki_types::ServerName;
use tokio::runtime::Runtime;

use super::{
    contenders::{Backend, Contender, Field, HOST, NAMES},
    cost::{self, Watch},
    figures::{BUSY, Better, Figure, GENERATOR},
    generator::{self, Load, Pace, Tally},
    link::{Link, Target},
    rows::{MIB, Measure, ROUTES, Row, Shape, Talk},
    trust,
};

/// Of rows whose runs are long for other reasons, so many at most.
const FEW: usize = 3;

/// All of the machine.
const CORES: f64 = 2.0;
/// The part of it that others may take of a run without it being told again, and how often it is told at most.
const DISTURBED: f64 = 0.1;
const TRIES: usize = 2;

/// How much is measured, and on whom.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) runs: usize,
    pub(crate) time: Duration,
    /// Who is measured now, and with how many routes.
    field: Option<(usize, Field)>,
}

impl Bench {
    pub(crate) fn new(runtime: Runtime, runs: usize, time: Duration) -> Self {
        Self { runtime, runs, time, field: None }
    }

    /// All figures of one row.
    pub(crate) fn row(&mut self, row: &Row) -> Vec<Figure> {
        self.enlist(if row.needs_routes() { ROUTES } else { 0 });
        let figures = match row.measure {
            Measure::Peak(shape) => self.peak(&shape),
            Measure::HalfLoad(shape) => self.half_load(&shape),
            Measure::Added(shape) => self.added(&shape),
            Measure::Memory(links) => Ok(self.memory(links)),
        };
        figures.unwrap_or_else(|error| panic!("{}: {error}", row.name))
    }

    /// Sees to it that there is a field with so many routes.
    fn enlist(&mut self, routes: usize) {
        if self.field.as_ref().is_none_or(|(has, _)| *has != routes) {
            self.field = None; // the old one ends first
            self.field = Some((routes, Field::start(&self.runtime, routes)));
        }
    }

    fn field(&self) -> &Field {
        &self.field.as_ref().expect("it was enlisted").1
    }

    /// Measures each contender in each run, another one first each time.
    fn interleaved(&self, mut one: impl FnMut(usize, &Contender) -> io::Result<()>) -> io::Result<()> {
        let contenders = &self.field().contenders;
        for run in 0..self.runs {
            for turn in 0..contenders.len() {
                let at = (run + turn) % contenders.len();
                one(at, &contenders[at]).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", contenders[at].name))
                })?;
            }
        }
        Ok(())
    }

    fn peak(&self, shape: &Shape) -> io::Result<Vec<Figure>> {
        let (amount, cost) =
            if shape.bulk { ("MiB/s", "µs CPU/MiB") } else { ("requests/s", "µs CPU/request") };
        let mut rate = Figure::new(amount, Better::More);
        let mut cpu = Figure::new(cost, Better::Less);
        let mut busy = Figure::new(BUSY, Better::Neither);
        let mut own = Figure::new(GENERATOR, Better::Neither);
        let mut others = Figure::new("% of both cores taken by others", Better::Neither);
        let mut resumed = Figure::new("% resumed", Better::Neither);
        self.interleaved(|at, contender| {
            let Tally { time, exchanges, moved, resumed: again, used, .. } =
                self.load(contender, shape, Pace::Eager(shape.depth))?;
            let done = if shape.bulk { moved as f64 / MIB } else { exchanges as f64 };
            let seconds = time.as_secs_f64();
            rate.add(at, done / seconds);
            cpu.add(at, used.measured * 1e6 / done);
            busy.add(at, used.measured / seconds * 100.0);
            own.add(at, used.generator / seconds * 100.0);
            others.add(at, used.others / seconds / CORES * 100.0);
            resumed.add(at, again as f64 / exchanges as f64 * 100.0);
            Ok(())
        })?;
        let mut figures = vec![rate, cpu, busy, own, others];
        figures.extend(shape.resumes.then_some(resumed));
        Ok(figures)
    }

    /// Each at the same pace: half of what all but the slowest of them can; who can't is given half of what it can.
    fn half_load(&self, shape: &Shape) -> io::Result<Vec<Figure>> {
        let mut peaks = [0.0; NAMES.len()];
        for (peak, contender) in peaks.iter_mut().zip(&self.field().contenders) {
            let tally = self.load(contender, shape, Pace::Eager(shape.depth))?;
            *peak = tally.exchanges as f64 / tally.time.as_secs_f64();
        }
        let mut sorted = peaks;
        sorted.sort_by(f64::total_cmp);
        let pace = |at: usize| (sorted[1].min(peaks[at]) / 2.0) as u32;
        let parts = [("µs p50", 0.5), ("µs p99", 0.99), ("µs p99.9", 0.999)];
        let mut figures = parts.map(|(unit, _)| Figure::new(unit, Better::Less));
        let mut cpu = Figure::new("µs CPU/request", Better::Less);
        let mut rate = Figure::new("requests/s asked for", Better::Neither);
        let mut own = Figure::new(GENERATOR, Better::Neither);
        self.interleaved(|at, contender| {
            let mut tally = self.load(contender, shape, Pace::PerSecond(pace(at)))?;
            tally.waits.sort_unstable();
            for (figure, (_, part)) in figures.iter_mut().zip(parts) {
                figure.add(at, quantile(&tally.waits, part));
            }
            cpu.add(at, tally.used.measured * 1e6 / tally.exchanges as f64);
            rate.add(at, f64::from(pace(at)));
            own.add(at, tally.used.generator / tally.time.as_secs_f64() * 100.0);
            Ok(())
        })?;
        Ok(figures.into_iter().chain([cpu, rate, own]).collect())
    }

    fn added(&self, shape: &Shape) -> io::Result<Vec<Figure>> {
        let mut added = Figure::new("µs p50 more than without a proxy", Better::Less);
        let mut whole = Figure::new("µs p50", Better::Less);
        let Backend { address, pid } = self.field().backend;
        let median = |mut tally: Tally| {
            tally.waits.sort_unstable();
            quantile(&tally.waits, 0.5)
        };
        self.interleaved(|at, contender| {
            let watch = Watch { measured: &[], backend: pid };
            let bare = run(Target { address, tls: None }, shape, Pace::Eager(1), self.time / 4, watch)?;
            let through = self.load(contender, shape, Pace::Eager(1))?;
            let (bare, through) = (median(bare), median(through));
            added.add(at, through - bare);
            whole.add(at, through);
            Ok(())
        })?;
        Ok(vec![added, whole])
    }

    /// A load on a contender, over TLS; once more where others took too much of the machine, and the quietest one counts.
    fn load(&self, contender: &Contender, shape: &Shape, pace: Pace) -> io::Result<Tally> {
        let _idle = idle(contender, shape.idle)?;
        let watch = Watch { measured: &contender.pids, backend: self.field().backend.pid };
        let sessions = if shape.resumes { shape.links } else { 0 };
        let once = || {
            let target = target(contender.address, shape.talk.alpn(), sessions);
            run(target, shape, pace, self.time, watch)
        };
        let disturbance = |tally: &Tally| tally.used.others / tally.time.as_secs_f64() / CORES;
        let mut quietest = once()?;
        for _ in 1..TRIES {
            if disturbance(&quietest) <= DISTURBED {
                break;
            }
            let another = once()?;
            if disturbance(&another) < disturbance(&quietest) {
                quietest = another;
            }
        }
        Ok(quietest)
    }

    /// Of processes that did nothing before, so that no earlier load's memory is taken for theirs.
    fn memory(&mut self, links: usize) -> Vec<Figure> {
        let mut each = Figure::new("KiB PSS/connection", Better::Less);
        let mut empty = Figure::new("MiB PSS before", Better::Neither);
        for _ in 0..self.runs.min(FEW) {
            self.field = None;
            self.enlist(0);
            for (at, contender) in self.field().contenders.iter().enumerate() {
                drop(idle(contender, 100).unwrap()); // what is made once, by the first ones
                let before = cost::memory(&contender.pids);
                let held = idle(contender, links).unwrap();
                let more = cost::memory(&contender.pids).saturating_sub(before);
                each.add(at, more as f64 / 1024.0 / held.len() as f64);
                empty.add(at, before as f64 / MIB);
            }
        }
        vec![each, empty]
    }
}

fn run(target: Target, shape: &Shape, pace: Pace, time: Duration, watch: Watch) -> io::Result<Tally> {
    let port = target.address.port();
    let requests = shape.talk.requests(port);
    let speech = |number: usize| shape.talk.speech(port, number, &requests);
    let load = Load { target, links: shape.links, speech: &speech, pace, life: shape.life, time };
    generator::run(&load, watch)
}

fn idle(contender: &Contender, links: usize) -> io::Result<Vec<Link>> {
    let talk = Talk::Small;
    let target = target(contender.address, talk.alpn(), 0);
    let speech = |number: usize| talk.speech(contender.address.port(), number, &talk.requests(0));
    generator::idle(&target, links, &speech)
}

/// A contender for links that keep sessions, each its own, or for links that keep none.
fn target(address: SocketAddr, alpn: &[u8], sessions: usize) -> Target {
    let name = ServerName::try_from(HOST).expect("it is a name");
    let configs = (0..sessions.max(1)).map(|_| trust::config(alpn, sessions > 0));
    Target { address, tls: Some((name, configs.collect())) }
}

/// Of sorted nanoseconds, in microseconds.
fn quantile(sorted: &[u32], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * part).round() as usize;
    f64::from(sorted.get(at).copied().unwrap_or(u32::MAX)) / 1000.0
}
