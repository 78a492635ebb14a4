//! What systemd knows of the platform: asked through `systemctl`, and only about the machine's own platform. Where there is no
//! systemd there is no answer.

use std::{collections::HashMap, process::Command};

use crate::place::Place;

/// How systemd runs the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `nexushub.service`: the supervisor, which runs the daemons.
    Supervised,
    /// `nexushub.target`: each daemon a unit.
    Units,
}

/// What systemd says of one daemon's unit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) active: String,
    pub(crate) sub: String,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u64,
    /// Microseconds on the monotonic clock at which it became active.
    pub(crate) since_monotonic_us: Option<u64>,
    pub(crate) status: String,
    pub(crate) result: String,
}

/// The form that is active; none for a platform with a home, and where systemd runs none.
pub(crate) fn active_form(place: &Place) -> Option<Form> {
    if place.home.is_some() {
        return None;
    }
    let active = |unit: &str| systemctl(&["is-active", unit]).is_some_and(|word| is_active(&word));
    match (active("nexushub.target"), active("nexushub.service")) {
        (true, _) => Some(Form::Units),
        (_, true) => Some(Form::Supervised),
        _ => None,
    }
}

/// What systemd says of a daemon.
pub(crate) fn unit(daemon: &str) -> Option<Unit> {
    let properties =
        "--property=ActiveState,SubState,MainPID,NRestarts,ActiveEnterTimestampMonotonic,StatusText,Result";
    let text = systemctl(&["show", properties, &format!("nexushub-{daemon}.service")])?;
    Some(parse(&text))
}

/// The word of `systemctl is-active`; a unit on its way up or down is there.
fn is_active(word: &str) -> bool {
    matches!(word.trim(), "active" | "activating" | "deactivating" | "reloading")
}

fn parse(text: &str) -> Unit {
    let said: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let text = |key: &str| said.get(key).copied().unwrap_or_default().to_owned();
    let number = |key: &str| said.get(key).and_then(|value| value.parse::<u64>().ok());
    Unit {
        active: text("ActiveState"),
        sub: text("SubState"),
        pid: number("MainPID").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        restarts: number("NRestarts").unwrap_or(0),
        since_monotonic_us: number("ActiveEnterTimestampMonotonic").filter(|us| *us != 0),
        status: text("StatusText"),
        result: text("Result"),
    }
}

fn systemctl(arguments: &[&str]) -> Option<String> {
    let output = Command::new("systemctl").args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_properties_of_a_unit_are_read_by_name() {
        let text = "MainPID=77\nNRestarts=2\nActiveState=active\nSubState=running\nStatusText=3 instances = fine\n\
                    ActiveEnterTimestampMonotonic=5000000\nResult=success\n";
        let unit = parse(text);
        assert_eq!((unit.pid, unit.restarts, unit.since_monotonic_us), (Some(77), 2, Some(5_000_000)));
        assert_eq!((unit.active.as_str(), unit.status.as_str()), ("active", "3 instances = fine"));
        let unit =
            parse("MainPID=0\nActiveState=failed\nResult=exit-code\nActiveEnterTimestampMonotonic=0\n");
        assert_eq!((unit.pid, unit.since_monotonic_us, unit.result.as_str()), (None, None, "exit-code"));
        assert_eq!(parse("garbage"), Unit::default());
    }

    #[test]
    fn a_platform_with_a_home_is_none_of_systemds() {
        let global = crate::args::Global { home: Some("/h".into()), ..Default::default() };
        assert_eq!(active_form(&Place::find(&global).unwrap()), None);
    }
}
