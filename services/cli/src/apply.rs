//! `nexushub apply`: has the platform take up its configuration, and executables that are new, and ends when what it changes
//! answers; or confirms that what the admin app no longer lists may go.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use clap::Args;
use nexushub_chassis::{launch::clock, standing};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::ConfirmRemovalsRequest,
};

use crate::{
    board::{Board, Supervisor},
    failure::{Failure, OK},
    instances, out,
    place::Place,
    plan::{
        self, Report,
        proposal::{self, Change, Comparison},
    },
    process::Signal,
    progress, restart, rpc,
    systemd::{Form, active_form},
};

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Leave the configuration, and stop the instances that the admin app no longer lists; their data stay
    #[arg(long)]
    confirm_removals: bool,
    /// Seconds to wait until what was changed answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// `nexushub apply`
pub(crate) async fn run(place: &Place, args: &Apply) -> Result<u8, Failure> {
    if args.confirm_removals { confirm(place).await } else { take_up(place, args.timeout).await }
}

async fn confirm(place: &Place) -> Result<u8, Failure> {
    let held = Report::of(plan::list(place).await?).held;
    let ids: Vec<String> = held.into_iter().map(|one| one.id).collect();
    if ids.is_empty() {
        out::say("nothing is held")?;
        return Ok(OK);
    }
    let answer = plan::client(place)?.confirm_removals(ConfirmRemovalsRequest { ids }).await;
    let answer = answer.map_err(|status| rpc::failed(place, "provider", &status))?.into_inner();
    out::say(&format!(
        "{} no longer listed are removed; their data stay",
        plan::instances(answer.removed.len())
    ))?;
    Ok(OK)
}

async fn take_up(place: &Place, seconds: u64) -> Result<u8, Failure> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let plan = compared(place).await?;
    if plan.is_nothing() {
        out::say(&with_the_unknown(&plan, "nothing of the configuration would change anything".to_owned()))?;
        return Ok(OK);
    }
    if let Some(fixed) = plan.fixed() {
        let hint = format!("change it back, or: {}, then up", place.command("down"));
        return Err(Failure::new(format!("{} can't change while the platform runs", fixed.key), hint));
    }
    let before = generations(place).await?;
    let units = active_form(place) == Some(Form::Units);
    if plan.is_for_the_supervisor() && !units {
        progress::waiting("waiting until it is taken up", roll(place, deadline)).await?;
    }
    // A folder of instances is no part of what a daemon is replaced for.
    if compared(place).await?.changed().next().is_some() {
        let left = deadline.saturating_duration_since(Instant::now());
        if units {
            restart::unit("provider")?
        } else {
            restart::daemon(place, "provider", left).await?
        };
    }
    let rest = compared(place).await?;
    if rest.changed().next().is_some() || rest.is_for_the_supervisor() {
        let hint = format!("see {}", place.command("logs supervisor"));
        return Err(Failure::new(
            "the configuration was not taken up as a whole: something refused it",
            hint,
        ));
    }
    let started = [Change::Added, Change::Restarted];
    let meant: Vec<&str> =
        plan.changed().filter(|(_, change)| started.contains(change)).map(|(id, _)| id).collect();
    let answered = answer(place, &meant, &before, deadline);
    progress::waiting("waiting until what it changes answers", answered).await?;
    out::say(&with_the_unknown(&plan, done(&plan)))?;
    Ok(OK)
}

async fn compared(place: &Place) -> Result<Comparison, Failure> {
    Ok(proposal::compared(place, None).await?.0)
}

async fn generations(place: &Place) -> Result<HashMap<String, u64>, Failure> {
    Ok(instances::list(place).await?.into_iter().map(|one| (one.id, one.generation)).collect())
}

/// Has the supervisor read it, and waits until it is through.
async fn roll(place: &Place, deadline: Instant) -> Result<(), Failure> {
    // One that is under way would end as if it were this one.
    let board = ready(place, None, deadline).await?;
    let supervisor = board.supervisor().ok_or_else(|| place.not_up())?;
    supervisor.signal(Signal::HUP).map_err(|error| {
        let hint = "run this as the user that started the platform";
        Failure::new(format!("could not signal the supervisor, process {}: {error}", supervisor.pid), hint)
    })?;
    ready(place, Some(board.supervisor.since_unix_ms), deadline).await.map(drop)
}

/// Waits until the supervisor is through with whatever it does, later than at the moment named.
async fn ready(place: &Place, since: Option<i64>, deadline: Instant) -> Result<Board, Failure> {
    loop {
        let board = Board::live(&place.run);
        if let Some(board) = board.filter(|board| is_ready(&board.supervisor, since)) {
            return Ok(board);
        }
        if Instant::now() > deadline {
            let hint = format!("see {}", place.command("logs supervisor"));
            return Err(Failure::new("the platform is not through with it in time", hint));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_ready(now: &Supervisor, since: Option<i64>) -> bool {
    now.state == "ready" && since != Some(now.since_unix_ms)
}

/// Waits until each of these is a generation that was not there before, and answers.
async fn answer(
    place: &Place,
    ids: &[&str],
    before: &HashMap<String, u64>,
    deadline: Instant,
) -> Result<(), Failure> {
    loop {
        let now = instances::list(place).await?;
        let next = |id: &&str| now.iter().find(|one| one.id == **id);
        let late: Vec<_> = ids.iter().filter(|id| !next(id).is_some_and(|one| is_up(one, before))).collect();
        if late.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline || late.iter().any(|id| next(id).is_some_and(|one| failed(one, before)))
        {
            let unix_ms = clock::unix_ms(std::time::SystemTime::now());
            let state = |one: &InstanceStatus| {
                format!(" ({}: {})", standing::word(one), instances::why(one, unix_ms))
            };
            let told = late.iter().map(|id| format!("`{id}`{}", next(id).map_or_else(String::new, state)));
            let message =
                format!("taken up, but these don't answer: {}", told.collect::<Vec<_>>().join(", "));
            return Err(Failure::new(
                message,
                format!("see {}", place.command(&format!("status {}", late[0]))),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_new(one: &InstanceStatus, before: &HashMap<String, u64>) -> bool {
    before.get(&one.id).is_none_or(|generation| one.generation > *generation)
}

fn is_up(one: &InstanceStatus, before: &HashMap<String, u64>) -> bool {
    matches!(one.state(), State::Running | State::Asleep) && is_new(one, before)
}

fn failed(one: &InstanceStatus, before: &HashMap<String, u64>) -> bool {
    one.state() == State::Failed && is_new(one, before)
}

/// What is said, and of what nothing is known.
fn with_the_unknown(plan: &Comparison, told: String) -> String {
    if plan.knows_settings() { told } else { told + plan::UNKNOWN }
}

fn done(plan: &Comparison) -> String {
    let count = |change: Change| plan.changed().filter(|(_, one)| *one == change).count();
    let kinds = [Change::Added, Change::Restarted, Change::Changed, Change::Removed];
    let kinds = kinds.map(|change| (count(change), change)).into_iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<_> =
        kinds.map(|(count, change)| format!("{} {}", plan::instances(count), change.name())).collect();
    let told =
        if kinds.is_empty() { "taken up".to_owned() } else { format!("taken up: {}", kinds.join(", ")) };
    match plan.replaced() {
        [] => told,
        daemons => format!("{told}; replaced: {}", daemons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_settings_are_not_known_that_is_said_whatever_else_is() {
        let told = with_the_unknown(&Comparison::default(), "nothing".to_owned());
        assert!(told.starts_with("nothing\n") && told.contains("is not known here"), "{told}");
        assert_eq!(with_the_unknown(&Comparison::settled(), "nothing".to_owned()), "nothing");
    }

    #[test]
    fn the_end_of_what_was_under_way_is_not_the_end_of_what_is_asked_for() {
        let now = |state: &str| Supervisor { state: state.into(), since_unix_ms: 7, ..Supervisor::default() };
        assert!(is_ready(&now("ready"), None) && is_ready(&now("ready"), Some(6)));
        assert!(!is_ready(&now("reloading"), None), "nothing is asked for yet");
        assert!(!is_ready(&now("ready"), Some(7)), "it did not read the signal yet");
    }
}
