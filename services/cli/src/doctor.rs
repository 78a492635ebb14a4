//! `nexushub doctor`: what this machine can do for apps, and what to do where it can't. Every finding says what was looked at, how
//! it is, and what next. Exit code 1 when something keeps apps from running.

mod bundle;
mod machine;

use std::path::PathBuf;

use clap::Args;
use nexushub_proto::{
    procmgr::{DriverStatus, ListDriversRequest, ListDriversResponse},
    provider::Admin,
};
use serde::Serialize;

use crate::{
    args::{DAEMONS, Output},
    failure::{FAILURE, Failure, OK},
    instances, out,
    place::Place,
    plan, rpc,
    table::{one_line, render},
};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How to write it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Write a file for whoever is to help (tar): this, status, configuration, metrics, the platform's own log; no secrets, and
    /// nothing that apps said
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// The whole answer; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    well: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Apps run, with less than could be.
    Note,
    /// Keeps apps from running.
    Bad,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    what: String,
    verdict: Verdict,
    /// How it is.
    says: String,
    /// What to do; empty = nothing.
    next: String,
}

impl Finding {
    fn ok(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Ok, says: says.into(), next: String::new() }
    }

    fn note(what: impl Into<String>, says: impl Into<String>, next: &str) -> Self {
        Self { verdict: Verdict::Note, next: next.to_owned(), ..Self::ok(what, says) }
    }

    fn bad(what: impl Into<String>, says: impl Into<String>, next: &str) -> Self {
        Self { verdict: Verdict::Bad, ..Self::note(what, says, next) }
    }
}

/// `nexushub doctor`
pub(crate) async fn run(place: &Place, args: &Doctor) -> Result<u8, Failure> {
    let mut findings = machine::findings(place);
    findings.extend(daemons(place).await);
    match drivers(place).await {
        Ok(told) => findings.extend(boxes(&told)),
        Err(failure) => findings.push(Finding::bad("boxes", failure.message, &failure.hint)),
    }
    findings.extend(admin(place).await);
    let well = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    let report = Report { version: 1, well, findings };
    let json = serde_json::to_string_pretty(&report).unwrap_or_default();
    match args.output {
        Output::Json => out::say(&json)?,
        Output::Table => out::say(&people(&report))?,
    }
    if let Some(path) = &args.bundle {
        bundle::write(place, path, &json).await?;
        out::tell(&format!("{} is for whoever is to help; read it before you give it away", path.display()));
    }
    Ok(if well { OK } else { FAILURE })
}

/// Whether the admin app is heard: what it lists runs on without it, but nothing changes.
async fn admin(place: &Place) -> Option<Finding> {
    heard(&plan::list(place).await.ok()?.admin?, &place.command("logs admin"))
}

fn heard(admin: &Admin, log: &str) -> Option<Finding> {
    Some(match admin.trouble.as_str() {
        _ if !admin.followed => return None,
        "" => Finding::ok("admin app", format!("is heard; {} instances are on its list", admin.listed)),
        trouble => Finding::note("admin app", trouble, &format!("see {log}")),
    })
}

async fn daemons(place: &Place) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in DAEMONS {
        findings.push(match rpc::health(place, name).await {
            Ok(()) => Finding::ok(name, "serves"),
            Err(why) => Finding::bad(name, why, &format!("see {}", place.command("status"))),
        });
    }
    findings
}

async fn drivers(place: &Place) -> Result<ListDriversResponse, Failure> {
    let answer = instances::client(place)?.list_drivers(ListDriversRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| rpc::failed(place, "procmgr", &status))
}

/// What the platform found out about the boxes of this machine.
fn boxes(told: &ListDriversResponse) -> Vec<Finding> {
    let auto = match (told.auto.as_str(), told.looking) {
        ("", true) => Finding::note("driver auto", "the trials of this machine are under way", "ask again"),
        ("", false) => Finding::bad(
            "driver auto",
            "no box can be made here",
            "mend one of the drivers below, or ask for `process` to run an app without isolation",
        ),
        (name, _) => Finding::ok("driver auto", format!("is {name}")),
    };
    let egress = match told.no_egress.as_str() {
        "" => Finding::ok("egress internet", "apps that ask for it have it"),
        why => Finding::note("egress internet", why, ""),
    };
    let each = told.drivers.iter().flat_map(driver);
    std::iter::once(auto).chain(each).chain([egress]).chain(machine_egress(told)).collect()
}

/// Worth a line where there are microVMs, and other boxes have what these lack.
fn machine_egress(told: &ListDriversResponse) -> Option<Finding> {
    let krun = told.drivers.iter().any(|driver| driver.name == "krun" && driver.missing.is_empty());
    let lacks = krun && told.no_egress.is_empty() && !told.no_machine_egress.is_empty();
    let next = "`auto` takes a sandbox for apps that ask for it";
    lacks.then(|| Finding::note("egress of krun", &told.no_machine_egress, next))
}

fn driver(driver: &DriverStatus) -> Vec<Finding> {
    let what = format!("driver {}", driver.name);
    let weak = |line: &String| Finding::note(&what, format!("not enforced here: {line}"), "");
    match driver.missing.as_str() {
        "" if driver.name == "process" => vec![Finding::ok(&what, "only by name: isolates nothing")],
        "" if driver.not_enforced.is_empty() => vec![Finding::ok(&what, "apps run in it")],
        "" => driver.not_enforced.iter().map(weak).collect(),
        why => vec![Finding::note(&what, why, "")],
    }
}

fn people(report: &Report) -> String {
    let row = |finding: &Finding| {
        let mark = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "BAD",
        };
        let next = if finding.next.is_empty() { String::new() } else { format!("; {}", finding.next) };
        [mark.to_owned(), finding.what.clone(), one_line(&format!("{}{next}", finding.says))]
    };
    let rows: Vec<_> = report.findings.iter().map(row).collect();
    render(["IS", "WHAT", "SAYS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(auto: &str, krun: &str, not_enforced: &[&str]) -> ListDriversResponse {
        let not_enforced = not_enforced.iter().map(ToString::to_string).collect();
        let status = |name: &str, missing: &str| DriverStatus {
            name: name.into(),
            missing: missing.into(),
            not_enforced: Vec::new(),
        };
        let sandbox = DriverStatus { not_enforced, ..status("sandbox", "") };
        ListDriversResponse {
            drivers: vec![status("krun", krun), sandbox, status("process", "")],
            auto: auto.into(),
            no_egress: String::new(),
            looking: false,
            no_machine_egress: String::new(),
        }
    }

    fn lines(told: &ListDriversResponse) -> String {
        let report = Report { version: 1, well: true, findings: boxes(told) };
        crate::shapes::tests::is_as_told(crate::shapes::DOCTOR, &report);
        people(&report)
    }

    #[test]
    fn an_admin_app_that_is_not_heard_is_worth_a_look_and_one_that_nobody_asks_is_none() {
        let found = |followed, trouble: &str| {
            heard(&Admin { followed, trouble: trouble.into(), listed: 7, ..Admin::default() }, "logs admin")
        };
        assert_eq!(found(true, ""), Some(Finding::ok("admin app", "is heard; 7 instances are on its list")));
        let trouble = Finding::note("admin app", "it answered 500", "see logs admin");
        assert_eq!(found(true, "it answered 500"), Some(trouble));
        assert_eq!(found(false, "it answered 500"), None);
    }

    #[test]
    fn people_learn_which_box_apps_get_and_why_not_a_better_one() {
        let expected = "\
IS    WHAT             SAYS
ok    driver auto      is sandbox
note  driver krun      no /dev/kvm
note  driver sandbox   not enforced here: memory: no control groups
ok    driver process   only by name: isolates nothing
ok    egress internet  apps that ask for it have it";
        assert_eq!(lines(&told("sandbox", "no /dev/kvm", &["memory: no control groups"])), expected);
    }

    #[test]
    fn a_machine_without_boxes_is_bad_and_one_that_is_still_tried_is_not() {
        let mut none = told("", "no /dev/kvm", &[]);
        assert_eq!(boxes(&none)[0].verdict, Verdict::Bad);
        none.looking = true;
        assert_eq!(boxes(&none)[0].verdict, Verdict::Note);
    }

    #[test]
    fn that_only_microvms_lack_a_way_out_is_told_where_there_are_some() {
        let findings = |krun: &str, no_egress: &str| {
            let (no_egress, no_machine_egress) = (no_egress.to_owned(), "no /dev/net/tun".to_owned());
            machine_egress(&ListDriversResponse { no_egress, no_machine_egress, ..told("krun", krun, &[]) })
        };
        let next = "`auto` takes a sandbox for apps that ask for it";
        let told = Finding::note("egress of krun", "no /dev/net/tun", next);
        assert_eq!(findings("", ""), Some(told));
        assert_eq!((findings("no /dev/kvm", ""), findings("", "needs root")), (None, None));
    }

    #[test]
    fn what_others_said_stays_on_its_line() {
        assert_eq!(lines(&told("sandbox", "a\nb\u{1b}[2J", &[])).lines().count(), 6);
    }
}
