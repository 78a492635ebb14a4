//! `nexushub audit`: who did what on the platform, from the daemons' own logs; and whether those are what was written.

use std::path::Path;

use clap::{Args, Subcommand};
use nexushub_chassis::audit::{self, Break, Chain, Entry};
use serde::Serialize;

use crate::{
    args::Output,
    failure::{Failure, OK},
    out, place, shapes,
    table::{Spare, fitted, one_line},
};

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    command: Option<Verify>,
    /// Only the newest so many entries
    #[arg(long, value_name = "N", default_value_t = 100)]
    tail: usize,
    /// How to write them; `json` is a line for each
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verify {
    /// See whether every entry is what was written, and none is missing between others
    ///
    /// Prints the digest of each log's last entry. Keep it elsewhere: it tells later whether entries were cut off at the end.
    /// Exit code 1 when a log is not what was written, with its file and line.
    #[command(after_long_help = shapes::VERIFY)]
    Verify {
        /// How to write it
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
}

/// An entry for programs; fields are only ever added.
#[derive(Debug, Serialize)]
struct Told<'e> {
    version: u32,
    #[serde(flatten)]
    entry: &'e Entry,
}

/// What became of all logs, for programs; fields are only ever added.
#[derive(Debug, Serialize)]
struct Report<'c> {
    version: u32,
    well: bool,
    logs: Vec<Log<'c>>,
}

#[derive(Debug, Serialize)]
struct Log<'c> {
    daemon: &'c str,
    entries: u64,
    last: &'c str,
    from_start: bool,
    torn: usize,
    broken: Option<Place<'c>>,
}

/// Where one is not what was written.
#[derive(Debug, Serialize)]
struct Place<'c> {
    file: &'c Path,
    line: u64,
    why: &'static str,
}

impl<'c> Report<'c> {
    fn of(chains: &'c [Chain]) -> Self {
        let place = |broken: &'c Break| Place { file: &broken.file, line: broken.line, why: broken.why };
        let log = |chain: &'c Chain| Log {
            daemon: &chain.daemon,
            entries: chain.entries,
            last: &chain.last,
            from_start: chain.from_start,
            torn: chain.torn,
            broken: chain.broken.as_ref().map(place),
        };
        let well = chains.iter().all(|chain| chain.broken.is_none());
        Self { version: 1, well, logs: chains.iter().map(log).collect() }
    }
}

/// `nexushub audit`
pub(crate) fn run(place: &place::Place, args: &Audit) -> Result<u8, Failure> {
    let folder = audit::folder(&place.state);
    let unread = |error: std::io::Error| {
        let hint = "run this as the user that the platform runs as, or as root";
        Failure::new(format!("could not read the audit logs in {}: {error}", folder.display()), hint)
    };
    if let Some(Verify::Verify { output }) = args.command {
        let chains = audit::verify(&folder).map_err(unread)?;
        if output == Output::Json {
            out::say(&serde_json::to_string_pretty(&Report::of(&chains)).unwrap_or_default())?;
        }
        return told(&chains, output);
    }
    let entries = audit::tail(&folder, args.tail).map_err(unread)?;
    match args.output {
        Output::Json => entries
            .iter()
            .map(|entry| Told { version: 1, entry })
            .try_for_each(|told| out::say(&serde_json::to_string(&told).unwrap_or_default()))?,
        Output::Table if entries.is_empty() => out::tell("nothing was noted yet"),
        Output::Table => out::say(&fitted(HEAD, &rows(&entries), &SPARE))?,
    }
    Ok(OK)
}

const HEAD: [&str; 8] = ["WHEN", "DAEMON", "WHO", "WHAT", "TO", "FROM", "RESULT", "DETAIL"];
/// What a narrow terminal does without.
const SPARE: [Spare; 6] = [
    Spare::Column("DAEMON"),
    Spare::Column("FROM"),
    Spare::Beyond("TO", 12),
    Spare::Beyond("WHEN", 20),
    Spare::Beyond("WHO", 12),
    Spare::Beyond("WHAT", 20),
];

fn rows(entries: &[Entry]) -> Vec<[String; 8]> {
    entries
        .iter()
        .map(|entry| {
            let Entry { ts, daemon, who, what, object, from, result, detail, .. } = entry;
            [ts, daemon, who, what, object, from, result, detail].map(|text| one_line(text))
        })
        .collect()
}

fn told(chains: &[Chain], output: Output) -> Result<u8, Failure> {
    let people = |_: &&Chain| output == Output::Table;
    for chain in chains.iter().filter(|chain| chain.broken.is_none()).filter(people) {
        out::say(&sound(chain))?;
    }
    let broken: Vec<String> = chains.iter().filter_map(|chain| chain.broken.as_ref()).map(place_of).collect();
    if broken.is_empty() {
        return Ok(OK);
    }
    let hint = "what stands before that line is proven; compare the rest with a copy from elsewhere";
    Err(Failure::new(format!("the audit log is not what was written: {}", broken.join("; ")), hint))
}

fn sound(chain: &Chain) -> String {
    let Chain { daemon, entries, last, from_start, torn, .. } = chain;
    let since = if *from_start { "from the first one on" } else { "older ones were deleted in time" };
    let end = if *torn > 0 { ", and one that is not finished" } else { "" };
    format!("{daemon}: {entries} entries{end}, {since}; the last one is {last}")
}

fn place_of(broken: &Break) -> String {
    format!("{}:{}: {}", broken.file.display(), broken.line, broken.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{shapes, table};

    fn chain(broken: Option<Break>) -> Chain {
        let (daemon, last) = ("provider".into(), "ab".into());
        Chain { daemon, entries: 3, last, from_start: true, torn: 0, broken }
    }

    #[test]
    fn a_sound_log_is_told_with_its_last_digest_and_a_broken_one_with_file_and_line() {
        assert_eq!(sound(&chain(None)), "provider: 3 entries, from the first one on; the last one is ab");
        let torn = Chain { torn: 5, from_start: false, ..chain(None) };
        assert!(sound(&torn).contains("one that is not finished, older ones were deleted"));
        let broken = Break { file: "/s/audit/provider.log".into(), line: 7, why: "it is no text" };
        let chains = [chain(None), chain(Some(broken))];
        let failure = told(&chains, Output::Json).expect_err("one is broken");
        assert!(failure.message.contains("/s/audit/provider.log:7: it is no text"), "{}", failure.message);
        let report = serde_json::to_value(Report::of(&chains)).unwrap_or_default();
        assert_eq!((&report["well"], &report["logs"][1]["broken"]["line"]), (&false.into(), &7.into()));
        shapes::tests::is_as_told(shapes::VERIFY, &report);
        let entry = Entry::default();
        shapes::tests::is_as_told(shapes::AUDIT, &Told { version: 1, entry: &entry });
    }

    #[test]
    fn entries_fit_a_terminal() {
        let entry = Entry {
            ts: "2026-01-02T03:04:05.678Z".into(),
            daemon: "debug-api".into(),
            who: "ada".into(),
            what: "application.rollback".into(),
            object: "18736e4f-93f9-4606-a7be-863c7986ea5b".into(),
            from: "192.168.100.200".into(),
            result: "ok".into(),
            detail: "84d89877f0d4041efb6bf91a16f0248f-12".into(),
            ..Entry::default()
        };
        let [narrow, wide] = table::tests::fits(HEAD, &rows(&[entry]), &SPARE);
        let expected = "\
WHEN                  WHO  WHAT                  TO            RESULT
    DETAIL
2026-01-02T03:04:05…  ada  application.rollback  18736e4f-93…  ok
    84d89877f0d4041efb6bf91a16f0248f-12";
        assert_eq!((narrow.as_str(), wide.as_str()), (expected, expected));
    }

    #[test]
    fn nothing_that_was_noted_moves_the_terminal() {
        let entry = Entry { who: "a\u{1b}[2J".into(), what: "application.stop".into(), ..Entry::default() };
        let text = fitted(HEAD, &rows(&[entry]), &SPARE);
        assert!(text.contains("a [2J") && text.contains("application.stop") && !text.contains('\u{1b}'));
    }
}
