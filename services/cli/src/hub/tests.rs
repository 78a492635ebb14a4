//! Which platform is meant, for everything that may be said of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::session::{
    store::Kept,
    tests::fake::{BASE, Fake, said as answer},
};

const URL: &str = "https://admin.example.org";

fn url(here: bool) -> Said<'static> {
    Said { platform: Some(URL), here }
}

fn local(here: bool) -> Said<'static> {
    Said { platform: Some(LOCAL), here }
}

const HOME: Said<'static> = Said { platform: None, here: true };
const NOTHING: Said<'static> = Said { platform: None, here: false };

#[test]
fn what_is_said_goes_before_what_is_here_and_what_is_near_before_what_is_far() {
    for project in [false, true] {
        for (line, variables, choice) in [
            (url(false), NOTHING, Choice::At(URL)),
            (url(false), HOME, Choice::At(URL)),
            (url(false), local(true), Choice::At(URL)),
            (local(false), url(false), Choice::Here),
            (local(true), NOTHING, Choice::Here),
            (HOME, NOTHING, Choice::Here),
            (HOME, url(false), Choice::Here),
            (NOTHING, url(false), Choice::At(URL)),
            (NOTHING, HOME, Choice::Here),
            (NOTHING, local(true), Choice::Here),
        ] {
            assert_eq!(choose([line, variables], project), Ok(choice));
        }
    }
    assert_eq!(choose([NOTHING, NOTHING], false), Ok(Choice::Current));
    assert_eq!(choose([NOTHING, NOTHING], true), Ok(Choice::Here), "a project's own goes before a login");
}

#[test]
fn two_platforms_said_in_one_way_are_not_guessed_at() {
    for said in [[url(true), NOTHING], [NOTHING, url(true)]] {
        let failure = choose(said, false).unwrap_err();
        assert_eq!(failure.code, crate::failure::USAGE);
        assert!(failure.message.contains(URL), "{failure}");
    }
}

fn elsewhere(named: bool) -> Hub {
    let made = rcgen::generate_simple_self_signed(vec!["example.org".to_owned()]).unwrap();
    let kept = Kept {
        url: URL.into(),
        base_domain: "example.org".into(),
        user: "ada".into(),
        refresh_token: "r".into(),
        ca: Some(made.cert.pem()),
    };
    Hub::Elsewhere(Session::open(Store::at("/nowhere".into()), kept, named).unwrap())
}

#[test]
fn commands_for_hints_name_a_platform_that_is_meant_only_because_it_was_named() {
    assert_eq!(elsewhere(false).command("logs shop"), "nexushub logs shop");
    assert_eq!(elsewhere(true).command("logs shop"), format!("nexushub logs shop --platform {URL}"));
    assert_eq!(elsewhere(true).zone().unwrap().url("shop"), "https://shop.example.org:443/");
}

#[test]
fn what_needs_the_machine_says_which_command_to_run_there() {
    let failure = elsewhere(false).place("down").unwrap_err().to_string();
    assert_eq!(
        failure,
        format!(
            "`nexushub down` needs the machine itself, and {URL} is elsewhere\n  \
             run it there: nexushub down; or mean a platform on this machine: nexushub down --platform local"
        )
    );
    let Err(failure) = elsewhere(false).client(Some("https://localhost")) else {
        panic!("it has one address")
    };
    assert_eq!(failure.code, crate::failure::USAGE);
}

#[tokio::test]
async fn what_sleeps_elsewhere_is_asked_for_by_its_own_name_and_learns_nothing_of_who_asks() {
    let fake = Fake::start(|_| std::future::ready(answer(404, "not there"))).await;
    let session = Session::open(Store::at("/nowhere".into()), fake.kept("refresh"), false).unwrap();
    let hub = Hub::Elsewhere(session);
    let one = InstanceStatus { host_name: "shop".into(), ..InstanceStatus::default() };
    hub.wake(&one).await.unwrap();
    let asked = fake.asked().remove(0);
    assert_eq!((asked.line.as_str(), asked.host), ("GET /", format!("shop.{BASE}:{}", fake.port)));
    assert_eq!((asked.bearer.as_str(), asked.cookie.as_str()), ("", ""));
}
