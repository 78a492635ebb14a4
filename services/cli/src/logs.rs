//! `nexushub logs`: of an app from procmgr, of a daemon from where daemons log.
//!
//! Following an app survives restarts of procmgr: every entry has a position, and after a break the stream is asked for again
//! from the last one told, so each line is shown once and none is passed over in silence. What is wanted of a log and how it is
//! written down is `applog`'s, as it is debug-api's.

mod daemon_log;
mod people;

use std::time::SystemTime;

use clap::Args;
use nexushub_chassis::{
    applog::{self, BadWish, Begin, Filter, Joiner, Reading, Told},
    retry::Retry,
};
use nexushub_launch::clock;
use nexushub_proto::procmgr::ReadLogRequest;
use tokio::time::timeout;
use tonic::{Code, Status};

use self::daemon_log::Wish;
pub(crate) use self::people::Manner;
use crate::{
    args::{DAEMONS, Output},
    failure::{Failure, OK},
    far,
    hub::Hub,
    instances, out,
    place::Place,
    pushed, rpc,
    table::one_line,
};

/// Most that is kept of a line in pieces.
const LINE_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// An app (id, app id, name it was pushed by, or host name), a daemon, or `supervisor`
    #[arg(value_name = "APP|DAEMON")]
    name: String,
    /// Go on with what is said from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begin with the last N lines, of those that are wanted
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Begin with the first line of this moment (2026-01-31T12:00:00Z), or of so long ago (90s, 10m, 2h, 7d); apps only
    #[arg(long, value_name = "TIME|AGE")]
    pub(crate) since: Option<String>,
    /// Only lines at least so bad: trace, debug, info, warn, error or fatal. A line says so as JSON or at its beginning; one that
    /// doesn't counts as error on standard error, as info elsewhere. Apps only
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Only lines that hold this text, as it is; apps only
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// Only lines after this cursor, whatever --tail and --since say (apps only; see the cursors with -o json)
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
    /// Write the time before each of an app's lines, also into a file or a pipe; on a terminal there are time (local) and stream
    /// (out, err) anyway
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// How to write an app's lines: json is an object a line, with the keys of a daemon's line (ts, level, instance, release, msg) and
    /// stream, cursor, generation and pid; daemons always write JSON
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl Logs {
    /// What is wanted of an app's log.
    fn reading(&self) -> Result<Reading, BadWish> {
        let filter = Filter::new(self.level.as_deref(), self.grep.as_deref())?;
        let now = clock::unix_ms(SystemTime::now());
        let since = self.since.as_deref().map(|text| applog::since(text, now)).transpose()?;
        Ok(match self.after.clone().filter(|cursor| !cursor.is_empty()) {
            Some(cursor) => Reading::after(cursor, filter, LINE_MAX),
            None => Reading::anew(Begin { tail: self.tail, since }, filter, LINE_MAX),
        })
    }

    /// What only an app's log has.
    fn of_apps_only(&self) -> Option<&'static str> {
        let asked = [
            ("--after", &self.after),
            ("--since", &self.since),
            ("--level", &self.level),
            ("--grep", &self.grep),
        ];
        let asked = asked.into_iter().find_map(|(name, value)| value.as_ref().map(|_| name));
        asked.or(self.timestamps.then_some("--timestamps"))
    }
}

/// `nexushub logs`
pub(crate) async fn run(hub: &Hub, args: &Logs) -> Result<u8, Failure> {
    if DAEMONS.contains(&args.name.as_str()) || args.name == "supervisor" {
        if let Some(name) = args.of_apps_only() {
            let hint = format!("leave {name} out; a daemon's log is JSON, for tools that read that");
            return Err(Failure::usage(format!("{name} is for the logs of apps"), hint));
        }
        let place = hub.clone().place(&format!("logs {}", args.name))?;
        let tail = args.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
        return daemon_log::show(&place, &Wish { daemon: &args.name, tail, follow: args.follow }).await;
    }
    let reading = args.reading().map_err(|bad| {
        Failure::usage(format!("--{} is not understood", bad.what), format!("use {}", bad.may_be))
    })?;
    let zone = hub.zone().ok();
    match hub {
        Hub::Here(place) => {
            let list = instances::list(place).await?;
            // An app that is no longer desired may have left a log, under its id.
            let one = instances::named(&list, &args.name, zone.as_ref())?;
            let id = one.map_or(&args.name, |instance| &instance.id);
            follow(place, id, (args.follow, &Manner::of(args, id)), reading).await
        }
        Hub::Elsewhere(session) => {
            let app =
                pushed::named(hub, &args.name).await?.ok_or_else(|| pushed::unknown(hub, &args.name))?;
            far::log::follow(&session.client()?, &app.id, args).await
        }
    }
}

/// The last lines of an instance, for a message about its failure.
pub(crate) async fn last_lines(place: &Place, id: &str, count: u32) -> Vec<String> {
    let begin = Begin { tail: Some(count), since: None };
    let mut reading = Reading::anew(begin, Filter::default(), LINE_MAX);
    let mut lines = Vec::new();
    let Ok(mut client) = instances::client(place) else { return lines };
    let Ok(answer) = client.read_log(reading.request(id, false)).await else { return lines };
    let mut entries = answer.into_inner();
    let mut keep = |told: Vec<Told>| {
        lines.extend(told.into_iter().filter_map(|told| match told {
            Told::Line(entry) => Some(one_line(String::from_utf8_lossy(&applog::plain(&entry)).trim_end())),
            Told::Gap(_) => None,
        }));
    };
    while let Ok(Some(said)) = entries.message().await {
        keep(reading.take(said.event));
    }
    keep(reading.ended());
    lines
}

async fn follow(
    place: &Place,
    id: &str,
    (follow, manner): (bool, &Manner),
    mut reading: Reading,
) -> Result<u8, Failure> {
    let mut retry = Retry::default();
    loop {
        let (before, searching) = (reading.position().to_owned(), reading.is_searching());
        let ended = stream(place, reading.request(id, follow), &mut reading, manner).await?;
        match ended {
            None if searching || !follow => {
                show(reading.ended(), manner)?;
                if !searching {
                    return Ok(OK);
                }
                continue;
            }
            Some(status) if !may_pass(&status) || (!follow && status.code() != Code::Unavailable) => {
                return Err(rpc::failed(place, "procmgr", &status));
            }
            Some(status) if !follow && before == reading.position() => {
                return Err(rpc::failed(place, "procmgr", &status)); // it is not there, and nobody waits for it
            }
            _ => reading.broke(),
        }
        if reading.position() != before {
            retry.reset();
        }
        tokio::time::sleep(retry.wait()).await;
    }
}

/// Shows one stream to its end; the status that broke it, if one did.
async fn stream(
    place: &Place,
    request: ReadLogRequest,
    reading: &mut Reading,
    manner: &Manner,
) -> Result<Option<Status>, Failure> {
    let mut client = instances::client(place)?; // with a token read anew: the platform may have been started anew
    let mut entries = match client.read_log(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Some(status)),
    };
    loop {
        let next = if reading.is_holding() {
            timeout(Joiner::HOLD, entries.message()).await.ok()
        } else {
            Some(entries.message().await)
        };
        match next {
            Some(Ok(Some(said))) => show(reading.take(said.event), manner)?,
            Some(Ok(None)) => return Ok(None),
            Some(Err(status)) => return Ok(Some(status)),
            None => show(reading.release(), manner)?, // a prompt, perhaps: its line may never end
        }
    }
}

/// Shows what there is to tell.
pub(crate) fn show(told: Vec<Told>, manner: &Manner) -> Result<(), Failure> {
    for told in told {
        match (told, manner) {
            (Told::Line(entry), manner) => out::write(&manner.line(&entry))?,
            (Told::Gap(gap), Manner::Json { .. }) => {
                let now = clock::unix_ms(SystemTime::now());
                out::write(applog::gap(gap.dropped, &gap.position, now).as_bytes())?;
            }
            (Told::Gap(gap), Manner::Terminal { .. } | Manner::Bare { .. }) => {
                out::tell(applog::system(&applog::gap_words(gap.dropped)).trim_end());
            }
        }
    }
    Ok(())
}

/// Whether a failure is procmgr's being away, which passes.
fn may_pass(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        logs: Logs,
    }

    fn logs(words: &[&str]) -> Logs {
        Line::parse_from(["logs", "shop"].iter().chain(words)).logs
    }

    #[test]
    fn programs_are_told_what_the_help_says() {
        let (line, position, release) = (b"ERROR x".to_vec(), "1:1".to_owned(), "r1".to_owned());
        let entry = nexushub_proto::procmgr::LogEntry {
            line,
            position,
            release,
            partial: true,
            ..Default::default()
        };
        let told: serde_json::Value = serde_json::from_str(&applog::json("shop", &entry)).unwrap();
        crate::shapes::tests::is_as_told(crate::shapes::LOGS, &told);
    }

    #[test]
    fn a_wish_is_what_debug_api_understands_by_it() {
        let request = |words: &[&str]| logs(words).reading().unwrap().request("shop", true);
        assert_eq!(request(&["-n", "5"]), request_of("", 5, true));
        assert_eq!(request(&[]), request_of("", 0, true));
        assert_eq!(request(&["--after", "1:5", "-n", "5", "--since", "1m"]), request_of("1:5", 0, true));
        let searched = request(&["-n", "5", "--level", "error"]);
        assert_eq!(searched, request_of("", 0, false), "it is found out first where they begin");
    }

    fn request_of(position: &str, tail: u32, follow: bool) -> ReadLogRequest {
        let (id, position) = ("shop".to_owned(), position.to_owned());
        ReadLogRequest { id, position, tail, follow, ..ReadLogRequest::default() }
    }

    #[test]
    fn nonsense_is_refused_and_so_is_what_a_daemons_log_has_not() {
        assert!(logs(&["--level", "loud"]).reading().unwrap_err().to_string().contains("warn"));
        assert!(logs(&["--since", "soon"]).reading().is_err() && logs(&["--grep", ""]).reading().is_err());
        assert_eq!(logs(&["--grep", "x"]).of_apps_only(), Some("--grep"));
        assert_eq!(logs(&["-t"]).of_apps_only(), Some("--timestamps"));
        assert_eq!(logs(&["-f", "-n", "3"]).of_apps_only(), None);
    }

    #[test]
    fn only_procmgrs_absence_is_waited_out() {
        assert!(
            may_pass(&Status::unavailable(""))
                && may_pass(&Status::unknown(""))
                && may_pass(&Status::cancelled(""))
        );
        assert!(!may_pass(&Status::not_found("")) && !may_pass(&Status::invalid_argument("")));
    }
}
