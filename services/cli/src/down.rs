//! `nexushub down`: whoever keeps the platform up is told to stop it, and waited for.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use clap::Args;
use nexushub_launch::lock::Lock;

use crate::{
    board::Board,
    failure::{Failure, OK},
    out,
    place::Place,
    process::{Process, Signal},
    systemd::{Form, active_form},
};

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Seconds to wait for the end; apps get 5 s each, all of it 60 s unless configured otherwise
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    timeout: u64,
}

/// `nexushub down`
pub(crate) fn run(place: &Place, args: &Down) -> Result<u8, Failure> {
    if let Some(form) = active_form(place) {
        return stop_units(form);
    }
    let patience = Duration::from_secs(args.timeout);
    let began = Instant::now();
    let supervisor = Board::live(&place.run).and_then(|board| board.supervisor());
    let Some(holder) = keeper(place)?.or(supervisor) else {
        return nobody_up(place);
    };
    holder.signal(Signal::TERM).map_err(|error| {
        Failure::new(
            format!("could not signal process {}: {error}", holder.pid),
            "run this as the user that started it",
        )
    })?;
    if !holder.ended_within(patience) {
        let hint = format!("it goes on stopping; see {}", place.command("logs supervisor"));
        return Err(Failure::new(
            format!("process {} did not end within {} s", holder.pid, args.timeout),
            hint,
        ));
    }
    // A supervisor that outlived its keeper stops nothing by itself.
    if let Some(left) = Board::live(&place.run).and_then(|board| board.supervisor()) {
        let hint = format!("the keeper ended before it; run {} again", place.command("down"));
        return Err(Failure::new(format!("supervisor {} is still there", left.pid), hint));
    }
    out::say(&format!("{place} is down, after {} s", began.elapsed().as_secs_f32().ceil()))?;
    Ok(OK)
}

/// Apps outlive a platform that was killed; then it is not enough to say that it is gone.
fn nobody_up(place: &Place) -> Result<u8, Failure> {
    match living_apps(&place.state) {
        0 => out::say(&format!("{place} is not up")).map(|()| OK),
        apps => Err(Failure::new(
            format!("{place} is not up, but {apps} of its apps still run"),
            format!("{} and {} stop them", place.command("up --detach"), place.command("down")),
        )),
    }
}

/// Generations whose shim lives: it holds their lock.
fn living_apps(state: &Path) -> usize {
    let below =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let generations =
        below(&state.join("instances")).flat_map(|instance| below(&instance).collect::<Vec<_>>());
    let locks = generations.map(|generation| generation.join("lock")).filter(|lock| lock.is_file());
    locks.filter(|lock| matches!(Lock::try_acquire(lock), Ok(None))).count()
}

/// The keeper, if there is one: it holds the lock, and is the process that its record names.
fn keeper(place: &Place) -> Result<Option<Process>, Failure> {
    let lock = place.run.join("keeper.lock");
    if !lock.exists() {
        return Ok(None);
    }
    let free = Lock::try_acquire(&lock).map_err(|error| Failure::io("look at", &lock, &error))?;
    if free.is_some() {
        return Ok(None);
    }
    let record = place.record();
    match Process::open(record.pid, record.start_time) {
        Some(keeper) => Ok(Some(keeper)),
        None => {
            let hint =
                "it may be starting or ending: try again; else find it with `fuser` and stop it by hand";
            Err(Failure::new(
                format!("somebody holds {}, but not who wrote keeper.json", lock.display()),
                hint,
            ))
        }
    }
}

fn stop_units(form: Form) -> Result<u8, Failure> {
    let units: &[&str] = match form {
        // The secret is ordered behind the daemons: waiting for it is waiting for them.
        Form::Units => &["nexushub.target", "nexushub-secret.service"],
        // The socket first: a connection would start the service again.
        Form::Supervised => &["nexushub.socket", "nexushub.service"],
    };
    let stopped = Command::new("systemctl").arg("stop").args(units).status();
    if stopped.is_ok_and(|status| status.success()) {
        out::say(&format!("stopped {}", units.join(" and ")))?;
        return Ok(OK);
    }
    Err(Failure::new(
        format!("systemctl could not stop {}", units.join(" and ")),
        "run this as root; see journalctl -xe",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        args::Global,
        keeper::{Post, tests::in_the_end},
    };

    #[test]
    fn nothing_to_stop_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let place =
            Place::find(&Global { home: Some(folder.path().to_owned()), ..Default::default() }).unwrap();
        assert_eq!(run(&place, &Down { timeout: 1 }), Ok(OK));
        assert!(!place.run.exists(), "and nothing is made");
    }

    #[test]
    fn a_keeper_is_the_process_that_holds_the_lock_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let place =
            Place::find(&Global { home: Some(folder.path().to_owned()), ..Default::default() }).unwrap();
        fs::create_dir(&place.run).unwrap();
        assert!(keeper(&place).unwrap().is_none());
        let post = Post::take(&place, false).unwrap().unwrap();
        assert_eq!(keeper(&place).unwrap().unwrap().pid, std::process::id());
        fs::write(place.run.join("keeper.json"), "{\"pid\":1,\"start_time\":1}").unwrap();
        assert!(keeper(&place).is_err(), "a record that does not fit is not believed");
        drop(post);
        fs::write(place.run.join("keeper.json"), "{\"pid\":1,\"start_time\":1}").unwrap();
        in_the_end(|| keeper(&place).is_ok_and(|found| found.is_none())); // an old record means nothing
    }

    #[test]
    fn an_app_lives_for_as_long_as_its_lock_is_held() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(living_apps(state.path()), 0);
        let generation = state.path().join("instances/a/g1");
        fs::create_dir_all(&generation).unwrap();
        fs::create_dir_all(state.path().join("instances/a/log")).unwrap();
        let held = Lock::try_acquire(&generation.join("lock")).unwrap().unwrap();
        assert_eq!(living_apps(state.path()), 1);
        drop(held);
        in_the_end(|| living_apps(state.path()) == 0);
    }
}
