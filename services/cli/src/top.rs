//! `nexushub top`: daemons, apps and what goes on at them, on a screen that follows; of a platform elsewhere the apps that were pushed.
//! Who knows is asked once a second, beside the keys (`asking.rs`), and what changed is written; however it ends, the terminal is as it
//! was.

mod asking;
mod screen;
mod state;
mod traffic;

use std::{
    fs,
    io::{IsTerminal, stdin, stdout},
    thread,
    time::{Instant, SystemTime},
};

use clap::Args;
use nexushub_chassis::standing;
use nexushub_launch::clock;
use nexushub_proto::procmgr::InstanceStatus;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use self::{
    asking::{ASK_EVERY, Asking, Heard, News},
    state::{App, Daemon, Effect, State},
    traffic::Traffic,
};
use crate::{
    board::Board,
    failure::{Failure, OK},
    hub::Hub,
    instances, out,
    table::{ago, one_line},
};

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Show the apps of this filter only; / changes it
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Begin with the log of the chosen app; l opens and closes it
    #[arg(long)]
    logs: bool,
}

/// The terminal, which is put back into its order when it is let go of.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("could not draw on the terminal: {error}"), "see $TERM")
        };
        ratatui::try_init().map(Self).map_err(failed)
    }

    fn draw(&mut self, state: &State) -> Result<(), Failure> {
        let drawn = self.0.draw(|frame| screen::draw(frame, state));
        drawn.map(drop).map_err(|_| Failure::unread())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = ratatui::try_restore(); // a terminal that is gone needs none
    }
}

/// `nexushub top`
pub(crate) async fn run(hub: &Hub, args: &Top) -> Result<u8, Failure> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        let hint = format!(
            "for programs there are {} and {}",
            hub.command("status -o json"),
            hub.command("events -o json")
        );
        return Err(Failure::usage("top needs a terminal", hint));
    }
    let first = hub.watch(None)?.begun().await?.known.list(); // a platform that is not up is said in a line, not on a screen
    let colours = out::seen().colours;
    let mut state = State { filter: args.filter.clone(), logs: args.logs, colours, ..State::default() };
    let mut screen = Screen::open()?;
    follow(hub, &mut state, &mut screen, first).await?;
    Ok(OK)
}

async fn follow(
    hub: &Hub,
    state: &mut State,
    screen: &mut Screen,
    first: Vec<InstanceStatus>,
) -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::new(format!("could not listen for signals: {error}"), ""))
    };
    let mut signals =
        [listen(SignalKind::terminate())?, listen(SignalKind::hangup())?, listen(SignalKind::interrupt())?];
    let [terminate, hangup, interrupt] = &mut signals;
    let (mut events, mut ticks) = (events(), tokio::time::interval(ASK_EVERY));
    let (mut asking, mut known) = (Asking::begin(hub)?, Known::new(hub, Instant::now()));
    known.take(Instant::now(), Heard::Apps(Ok(first)));
    state.title = hub.to_string();
    loop {
        let effect = tokio::select! {
            _ = terminate.recv() => Effect::Quit,
            _ = hangup.recv() => Effect::Quit,
            _ = interrupt.recv() => Effect::Quit,
            event = events.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => state.key(key),
                Some(Event::Resize(..)) => Effect::Draw,
                Some(_) => Effect::Nothing,
                None => Effect::Quit,
            },
            heard = asking.heard() => {
                known.take(Instant::now(), heard);
                Effect::Draw
            }
            _ = ticks.tick() => Effect::Draw,
        };
        match effect {
            Effect::Quit => return Ok(()),
            Effect::Nothing => continue,
            Effect::Draw => {}
        }
        let board = match hub {
            Hub::Here(place) => Board::read(&place.run).unwrap_or_default(),
            Hub::Elsewhere(_) => Board::default(), // its daemons are for who sits there
        };
        known.show(state, &board, Instant::now());
        asking.log_of(state.chosen().filter(|_| state.logs).map(|app| app.id.as_str()));
        screen.draw(state)?;
    }
}

/// What was heard so far.
struct Known {
    traffic: Traffic,
    counted: News<()>,
    apps: News<Vec<InstanceStatus>>,
    /// Whose log, and its end.
    log: (String, Vec<String>),
}

impl Known {
    fn new(hub: &Hub, now: Instant) -> Self {
        let from = match hub {
            Hub::Here(_) => ["proxy", "procmgr"],
            Hub::Elsewhere(_) => ["the platform"; 2],
        };
        let (counted, apps) = (News::none(from[0], "requests", now), News::none(from[1], "apps", now));
        Self { traffic: Traffic::default(), counted, apps, log: Default::default() }
    }

    fn take(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Metrics(said) => {
                let counted = said.map(|text| self.traffic.add(now, &text));
                self.counted.take(now, counted);
            }
            Heard::Apps(said) => self.apps.take(now, said),
            Heard::Log(id, lines) => self.log = (id, lines),
        }
    }

    /// Has it shown, with what the supervisor says; and says what of it is old.
    fn show(&self, state: &mut State, board: &Board, now: Instant) {
        let clock = clock::unix_ms(SystemTime::now());
        state.apps = self.apps.last.iter().map(|one| app(one, &self.traffic, clock)).collect();
        state.daemons = board.daemons.iter().map(|one| daemon(one, clock)).collect();
        let trouble: Vec<String> =
            [self.counted.trouble(now), self.apps.trouble(now)].into_iter().flatten().collect();
        state.trouble = trouble.join("; ");
        let (of, lines) = &self.log;
        let is_of = state.chosen().is_some_and(|app| app.id == *of);
        state.lines = if is_of { lines.clone() } else { Vec::new() };
    }
}

/// What happens on the terminal. The thread ends with the process: nothing else ends its wait.
fn events() -> UnboundedReceiver<Event> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {});
    receiver
}

fn app(one: &InstanceStatus, traffic: &Traffic, now: i64) -> App {
    let state = standing::word(one);
    App {
        id: one.id.clone(),
        name: if one.app_id.is_empty() { one.id.clone() } else { one.app_id.clone() },
        host: one.host_name.clone(),
        state: if one.pause.is_some() { "paused".to_owned() } else { state.to_owned() },
        driver: one.driver.clone(),
        since: ago(one.since_unix_ms, now),
        memory: one.usage.as_ref().map(|usage| usage.memory_bytes).filter(|bytes| *bytes > 0),
        flow: traffic.of(&one.id),
        reason: instances::why(one, now),
    }
}

fn daemon(one: &crate::board::Daemon, now: i64) -> Daemon {
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    Daemon {
        name: one.name.clone(),
        state: one.state.clone(),
        pid: one.pid,
        restarts: one.restarts,
        since: ago(one.since_unix_ms, now),
        memory: one.pid.and_then(resident),
        says: one_line(&if one.is_ready() { said(&one.status) } else { said(&one.reason) }),
    }
}

/// Bytes of memory that a process has; none where we may not know, or it has ended.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_is_told_of_processes_that_are_there() {
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(resident(u32::MAX), None);
    }

    #[test]
    fn what_was_heard_stays_on_the_screen_and_a_log_is_only_that_of_the_chosen_app() {
        let begin = Instant::now();
        let place = crate::place::Place::find(&crate::args::Global::default()).unwrap();
        let (mut known, mut state) = (Known::new(&Hub::Here(place), begin), State::default());
        let one = |id: &str| InstanceStatus { id: id.into(), ..Default::default() };
        known.take(begin, Heard::Apps(Ok(vec![one("a"), one("b")])));
        known.take(begin, Heard::Log("a".into(), vec!["line".into()]));
        let later = begin + std::time::Duration::from_secs(9);
        known.take(later, Heard::Metrics(Ok(String::new())));
        known.show(&mut state, &Board::default(), later);
        assert_eq!((state.apps.len(), state.lines.as_slice()), (2, &["line".to_owned()][..]));
        assert_eq!(state.trouble, "apps as of 9 s ago: procmgr does not answer");
        state.chosen = Some("b".into());
        known.show(&mut state, &Board::default(), later);
        assert!(state.lines.is_empty());
    }

    #[test]
    fn an_app_that_is_paused_says_so_whatever_it_does_meanwhile() {
        let one = InstanceStatus {
            id: "1".into(),
            pause: Some(nexushub_proto::procmgr::Pause::default()),
            ..Default::default()
        };
        let app = app(&one, &Traffic::default(), 0);
        assert_eq!((app.name.as_str(), app.state.as_str()), ("1", "paused"));
    }
}
