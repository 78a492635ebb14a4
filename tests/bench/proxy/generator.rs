//! The load: many links on one thread, each asking again as soon as it was answered, or all of them at a given pace.
//!
//! It shares its core with the backend, so it does as little as it can: one read and one write for each exchange, no runtime, no
//! allocation for each request. At a pace, an exchange's time begins when it was due, not when a link was free for it.

use std::{
    collections::VecDeque,
    io, mem,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

use super::{
    cost::{Used, Watch},
    link::{self, Link, Target},
    speech::Speech,
};

/// What comes before the clock runs: handshakes, first connections to the backend, pools that fill.
const WARM: Duration = Duration::from_millis(300);
/// The timer's place among the links.
const TIMER: u64 = u64::MAX;
/// After so long without any event the load has failed.
const SILENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// At a pace, requests fall due together so often a second at most: where each has an interrupt of its own, a virtual machine's core
/// has time for little else.
const TICKS: u32 = 2_000;

/// When requests are made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// On each link so many at once, the next one for each that was answered.
    Eager(usize),
    /// So many a second on all links together.
    PerSecond(u32),
}

/// How long a link lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// For the whole load.
    Kept,
    /// For one exchange; then another takes its place.
    Once,
}

/// A load.
pub(crate) struct Load<'a> {
    pub(crate) target: Target,
    pub(crate) links: usize,
    /// What the link of each number says.
    pub(crate) speech: &'a dyn Fn(usize) -> Box<dyn Speech>,
    pub(crate) pace: Pace,
    pub(crate) life: Life,
    pub(crate) time: Duration,
}

/// What came of a load, from the end of its warming up on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) time: Duration,
    pub(crate) exchanges: u64,
    /// Bytes of content, both ways.
    pub(crate) moved: u64,
    /// Exchanges on links whose handshake took up an earlier session.
    pub(crate) resumed: u64,
    /// How long each exchange took, in nanoseconds.
    pub(crate) waits: Vec<u32>,
    pub(crate) used: Used,
}

/// Runs a load and watches what it costs.
///
/// # Errors
/// When a link breaks or an answer is wrong: a figure without every answer is none.
pub(crate) fn run(load: &Load, watch: Watch) -> io::Result<Tally> {
    let mut floor = Floor::open(load)?;
    let (began, mut events) = (Instant::now(), Vec::with_capacity(1024));
    let mut begun = None;
    loop {
        epoll::wait(&floor.poll, spare_capacity(&mut events), Some(&SILENCE))?;
        if events.is_empty() {
            return Err(io::Error::other("nothing happens any more"));
        }
        let now = Instant::now();
        match begun {
            None if now - began >= WARM => {
                floor.tally = Tally::default();
                begun = Some((now, watch.look()));
            }
            Some((from, before)) if now - from >= load.time => {
                return Ok(Tally { time: now - from, used: watch.look().since(before), ..floor.tally });
            }
            _ => {}
        }
        for Event { data, .. } in events.drain(..) {
            floor.attend(data.u64(), now)?;
        }
    }
}

/// A link and what is under way on it.
struct Place {
    link: Link,
    /// When each of its open requests was made or due, oldest first.
    asked: VecDeque<Instant>,
    /// The poll tells when the socket takes more.
    waits: bool,
}

struct Floor<'a> {
    load: &'a Load<'a>,
    poll: rustix::fd::OwnedFd,
    places: Vec<Place>,
    room: Vec<u8>,
    timer: Option<TimerFd>,
    period: Duration,
    /// So many requests fall due in each.
    together: u32,
    /// When the next request is due, at a pace.
    due: Instant,
    /// Links without a request, and requests without a link, at a pace.
    free: Vec<usize>,
    late: VecDeque<Instant>,
    tally: Tally,
}

impl<'a> Floor<'a> {
    fn open(load: &'a Load) -> io::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let (timer, period, together) = match load.pace {
            Pace::Eager(_) => (None, Duration::ZERO, 0),
            Pace::PerSecond(rate) => {
                let together = rate.div_ceil(TICKS);
                let period = Duration::from_secs(together.into()) / rate;
                (Some(ticking(poll.as_fd(), period)?), period, together)
            }
        };
        let (places, free) = (Vec::new(), (0..load.links).rev().filter(|_| timer.is_some()).collect());
        let (room, due) = (link::room(), Instant::now());
        let (late, tally) = (VecDeque::new(), Tally::default());
        let mut floor = Self { load, poll, places, room, timer, period, together, due, free, late, tally };
        for number in 0..load.links {
            let place = floor.connect(number)?;
            floor.places.push(place);
            floor.begin(number)?;
        }
        Ok(floor)
    }

    fn connect(&self, number: usize) -> io::Result<Place> {
        let link = Link::open(&self.load.target, number, (self.load.speech)(number))?;
        epoll::add(&self.poll, &link.tcp, EventData::new_u64(number as u64), EventFlags::IN)?;
        Ok(Place { link, asked: VecDeque::new(), waits: false })
    }

    /// The first requests of a link that is new.
    fn begin(&mut self, number: usize) -> io::Result<()> {
        let depth = if let Pace::Eager(depth) = self.load.pace { depth } else { 0 };
        let now = Instant::now();
        for _ in 0..depth {
            self.ask(number, now);
        }
        self.flush(number)
    }

    fn ask(&mut self, number: usize, since: Instant) {
        let place = &mut self.places[number];
        place.asked.push_back(since);
        place.link.ask();
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let place = &mut self.places[number];
        let waits = !place.link.flush()?;
        if waits != mem::replace(&mut place.waits, waits) {
            let interest = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.poll, &place.link.tcp, EventData::new_u64(number as u64), interest)?;
        }
        Ok(())
    }

    fn attend(&mut self, number: u64, now: Instant) -> io::Result<()> {
        if number == TIMER {
            return self.fall_due(now);
        }
        let number = usize::try_from(number).expect("it was one");
        let place = &mut self.places[number];
        let before = place.link.moved;
        let finished = place.link.hear(&mut self.room)?;
        self.tally.moved += place.link.moved - before;
        if finished > 0 {
            self.finish(number, finished)?;
        }
        let before = self.places[number].link.moved;
        self.flush(number)?;
        self.tally.moved += self.places[number].link.moved - before;
        Ok(())
    }

    fn finish(&mut self, number: usize, finished: usize) -> io::Result<()> {
        let now = Instant::now();
        let place = &mut self.places[number];
        self.tally.exchanges += finished as u64;
        for since in place.asked.drain(..finished) {
            self.tally.waits.push(u32::try_from((now - since).as_nanos()).unwrap_or(u32::MAX));
        }
        if self.load.life == Life::Once {
            self.tally.resumed += u64::from(place.link.is_resumed());
            self.places[number] = self.connect(number)?;
            return self.begin(number);
        }
        match self.load.pace {
            Pace::Eager(_) => (0..finished).for_each(|_| self.ask(number, now)),
            Pace::PerSecond(_) => match self.late.pop_front() {
                Some(since) => self.ask(number, since),
                None => self.free.push(number),
            },
        }
        Ok(())
    }

    /// Makes the requests that have become due.
    fn fall_due(&mut self, now: Instant) -> io::Result<()> {
        let timer = self.timer.as_ref().expect("who ticks is there");
        rustix::io::read(timer.as_fd(), &mut [0; 8])?;
        while self.due <= now {
            for _ in 0..self.together {
                match self.free.pop() {
                    Some(number) => {
                        self.ask(number, self.due);
                        self.flush(number)?;
                    }
                    None => self.late.push_back(self.due),
                }
            }
            self.due += self.period;
        }
        Ok(())
    }
}

/// A timer that wakes the poll once in a period.
fn ticking(poll: impl AsFd, period: Duration) -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(period)), TimerSetTimeFlags::empty())?;
    epoll::add(poll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
    Ok(timer)
}

/// Opens so many links, has one request answered on each, and leaves them as they are.
///
/// # Errors
/// When one breaks.
pub(crate) fn idle(
    target: &Target,
    links: usize,
    speech: &dyn Fn(usize) -> Box<dyn Speech>,
) -> io::Result<Vec<Link>> {
    let mut room = link::room();
    let one = |number: usize| {
        let mut link = Link::open(target, number, speech(number))?;
        link.tcp.set_nonblocking(false)?;
        link.ask();
        loop {
            link.flush()?;
            if link.hear(&mut room)? > 0 {
                return Ok(link);
            }
        }
    };
    (0..links).map(one).collect()
}
