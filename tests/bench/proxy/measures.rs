//! How each kind of row is measured: every contender in turn within each run, the runs one after the other, so that whatever the
//! machine does meanwhile it does to all of them.

use std::{io, net::SocketAddr, time::Duration};

use rustls_pki_types::ServerName;
use tokio::runtime::Runtime;

use super::{
    contenders::{Contender, Field, HOST, NAMES},
    cost,
    figures::{Better, Figure},
    generator::{self, Load, Pace, Tally},
    link::{Link, Target},
    rows::{MIB, Measure, ROUTES, Row, Shape},
    trust,
};

/// Of rows whose runs are long for other reasons, so many at most.
const FEW: usize = 3;

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
        let mut busy = Figure::new("% of its core", Better::Neither);
        let mut own = Figure::new("% of the generator's core", Better::Neither);
        let mut resumed = Figure::new("% resumed", Better::Neither);
        self.interleaved(|at, contender| {
            let tally = load(contender, shape, Pace::Eager(shape.depth), self.time)?;
            let done = if shape.bulk { tally.moved as f64 / MIB } else { tally.exchanges as f64 };
            let seconds = tally.time.as_secs_f64();
            rate.add(at, done / seconds);
            cpu.add(at, tally.cpu.as_secs_f64() * 1e6 / done);
            busy.add(at, tally.cpu.as_secs_f64() / seconds * 100.0);
            own.add(at, tally.own_cpu.as_secs_f64() / seconds * 100.0);
            resumed.add(at, tally.resumed as f64 / tally.exchanges as f64 * 100.0);
            Ok(())
        })?;
        let mut figures = vec![rate, cpu, busy, own];
        figures.extend(shape.resumes.then_some(resumed));
        Ok(figures)
    }

    /// Each at the same pace: half of what all but the slowest of them can; who can't is given half of what it can.
    fn half_load(&self, shape: &Shape) -> io::Result<Vec<Figure>> {
        let mut peaks = [0.0; NAMES.len()];
        for (peak, contender) in peaks.iter_mut().zip(&self.field().contenders) {
            let tally = load(contender, shape, Pace::Eager(shape.depth), self.time)?;
            *peak = tally.exchanges as f64 / tally.time.as_secs_f64();
        }
        let mut sorted = peaks;
        sorted.sort_by(f64::total_cmp);
        let pace = |at: usize| (sorted[1].min(peaks[at]) / 2.0) as u32;
        let parts = [("µs p50", 0.5), ("µs p99", 0.99), ("µs p99.9", 0.999)];
        let mut figures = parts.map(|(unit, _)| Figure::new(unit, Better::Less));
        let mut cpu = Figure::new("µs CPU/request", Better::Less);
        let mut rate = Figure::new("requests/s asked for", Better::Neither);
        self.interleaved(|at, contender| {
            let mut tally = load(contender, shape, Pace::PerSecond(pace(at)), self.time)?;
            tally.waits.sort_unstable();
            for (figure, (_, part)) in figures.iter_mut().zip(parts) {
                figure.add(at, quantile(&tally.waits, part));
            }
            cpu.add(at, tally.cpu.as_secs_f64() * 1e6 / tally.exchanges as f64);
            rate.add(at, f64::from(pace(at)));
            Ok(())
        })?;
        Ok(figures.into_iter().chain([cpu, rate]).collect())
    }

    fn added(&self, shape: &Shape) -> io::Result<Vec<Figure>> {
        let mut added = Figure::new("µs p50 more than without a proxy", Better::Less);
        let mut whole = Figure::new("µs p50", Better::Less);
        let backend = self.field().backend;
        let median = |mut tally: Tally| {
            tally.waits.sort_unstable();
            quantile(&tally.waits, 0.5)
        };
        self.interleaved(|at, contender| {
            let bare = Target { address: backend, tls: None };
            let bare = run(bare, shape, Pace::Eager(1), self.time / 4, &[])?;
            let through = load(contender, shape, Pace::Eager(1), self.time)?;
            let (bare, through) = (median(bare), median(through));
            added.add(at, through - bare);
            whole.add(at, through);
            Ok(())
        })?;
        Ok(vec![added, whole])
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

/// A load on a contender, over TLS.
fn load(contender: &Contender, shape: &Shape, pace: Pace, time: Duration) -> io::Result<Tally> {
    let _idle = idle(contender, shape.idle)?;
    run(target(contender.address, shape.talk.alpn(), shape.resumes), shape, pace, time, &contender.pids)
}

fn run(target: Target, shape: &Shape, pace: Pace, time: Duration, pids: &[u32]) -> io::Result<Tally> {
    let port = target.address.port();
    let requests = shape.talk.requests(port);
    let speech = |number: usize| shape.talk.speech(port, number, &requests);
    let load = Load { target, links: shape.links, speech: &speech, pace, life: shape.life, time };
    generator::run(&load, || cost::of(pids))
}

fn idle(contender: &Contender, links: usize) -> io::Result<Vec<Link>> {
    let talk = super::rows::Talk::Small;
    let target = target(contender.address, talk.alpn(), false);
    let speech = |number: usize| talk.speech(contender.address.port(), number, &talk.requests(0));
    generator::idle(&target, links, &speech)
}

fn target(address: SocketAddr, alpn: &[u8], resumes: bool) -> Target {
    let name = ServerName::try_from(HOST).expect("it is a name");
    Target { address, tls: Some((name, trust::config(alpn, resumes))) }
}

/// Of sorted nanoseconds, in microseconds.
fn quantile(sorted: &[u32], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * part).round() as usize;
    f64::from(sorted.get(at).copied().unwrap_or(u32::MAX)) / 1000.0
}
