//! `nexushub top`: daemons, apps and what goes on at them, on a screen that follows. It asks once a second and writes what changed;
//! however it ends, the terminal is as it was.

mod screen;
mod state;
mod traffic;

use std::{
    fs,
    io::{IsTerminal, stdin, stdout},
    thread,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
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
    state::{App, Daemon, Effect, State},
    traffic::Traffic,
};
use crate::{
    board::Board,
    failure::{Failure, OK},
    instances, logs, metrics, out,
    place::Place,
    table::{ago, one_line},
};

/// How often everything is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Lines of a log that are asked for.
const LINES: u32 = 100;

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
pub(crate) async fn run(place: &Place, args: &Top) -> Result<u8, Failure> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        let hint = format!(
            "for programs there are {} and {}",
            place.command("status -o json"),
            place.command("metrics")
        );
        return Err(Failure::usage("top needs a terminal", hint));
    }
    instances::list(place).await?; // a platform that is not up is said in a line, not on a screen
    let colours = out::seen().colours;
    let mut state = State { filter: args.filter.clone(), logs: args.logs, colours, ..State::default() };
    let mut screen = Screen::open()?;
    follow(place, &mut state, &mut screen).await?;
    Ok(OK)
}

async fn follow(place: &Place, state: &mut State, screen: &mut Screen) -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::new(format!("could not listen for signals: {error}"), ""))
    };
    let mut signals =
        [listen(SignalKind::terminate())?, listen(SignalKind::hangup())?, listen(SignalKind::interrupt())?];
    let [terminate, hangup, interrupt] = &mut signals;
    let (mut events, mut ticks, mut traffic) =
        (events(), tokio::time::interval(ASK_EVERY), Traffic::default());
    loop {
        let effect = tokio::select! {
            _ = terminate.recv() => Effect::Quit,
            _ = hangup.recv() => Effect::Quit,
            _ = interrupt.recv() => Effect::Quit,
            _ = ticks.tick() => {
                gather(place, state, &mut traffic).await;
                Effect::Ask
            }
            event = events.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => state.key(key),
                Some(Event::Resize(..)) => Effect::Draw,
                Some(_) => Effect::Nothing,
                None => Effect::Quit,
            },
        };
        match effect {
            Effect::Quit => return Ok(()),
            Effect::Nothing => continue,
            Effect::Ask => ask_log(place, state).await,
            Effect::Draw => {}
        }
        screen.draw(state)?;
    }
}

/// What happens on the terminal. The thread ends with the process: nothing else ends its wait.
fn events() -> UnboundedReceiver<Event> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {});
    receiver
}

/// Asks everybody; who can't be asked is said.
async fn gather(place: &Place, state: &mut State, traffic: &mut Traffic) {
    let now = clock::unix_ms(SystemTime::now());
    let mut trouble = Vec::new();
    match metrics::text(place).await {
        Ok(text) => traffic.add(Instant::now(), &text),
        Err(failure) => trouble.push(failure.message),
    }
    match instances::list(place).await {
        Ok(list) => state.apps = list.iter().map(|one| app(one, traffic, now)).collect(),
        Err(failure) => trouble.push(failure.message),
    }
    let board = Board::read(&place.run).unwrap_or_default();
    state.daemons = board.daemons.iter().map(|one| daemon(one, now)).collect();
    (state.title, state.trouble) = (place.to_string(), trouble.join("; "));
}

fn app(one: &InstanceStatus, traffic: &Traffic, now: i64) -> App {
    let state = instances::state(one);
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

/// The end of the chosen app's log, where it is to be seen.
async fn ask_log(place: &Place, state: &mut State) {
    if !state.logs {
        return;
    }
    let Some(id) = state.chosen().map(|app| app.id.clone()) else {
        state.lines.clear();
        return;
    };
    state.lines = logs::last_lines(place, &id, LINES).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_of_processes_that_are_there() {
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(resident(u32::MAX), None);
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
