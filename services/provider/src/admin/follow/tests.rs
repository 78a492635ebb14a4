//! The follower against an admin app that says what a script says, in a time of its own.

#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use http::StatusCode;
use nexushub_proto::procmgr::InstancesSnapshot;

use super::*;
use crate::{
    admin::{
        ask::AskError,
        course::Heard,
        list::{self, List},
    },
    desired::{Owner, tests::book},
    disk::Disk,
    typed::Judge,
};

/// What it says next, and how long it takes.
enum Says {
    List(&'static [&'static str]),
    Last(u64),
    Unchanged(Duration),
    Broken,
    /// An error, after so long.
    Slow(Duration),
}

/// Follows its script, then holds the call for ever.
struct Scripted {
    script: VecDeque<Says>,
    asked: Arc<Mutex<Vec<(Duration, String)>>>,
    began: Instant,
}

impl Scripted {
    async fn next(&mut self, asked: String) -> Result<Says, AskError> {
        self.asked.lock().unwrap().push((self.began.elapsed(), asked));
        match self.script.pop_front() {
            Some(Says::Broken) => Err(AskError::Status(StatusCode::BAD_GATEWAY, "broken".into())),
            Some(Says::Slow(took)) => {
                tokio::time::sleep(took).await;
                Err(AskError::Status(StatusCode::INTERNAL_SERVER_ERROR, "slow".into()))
            }
            Some(Says::Unchanged(held)) => {
                tokio::time::sleep(held).await;
                Ok(Says::Unchanged(held))
            }
            Some(says) => Ok(says),
            None => std::future::pending().await,
        }
    }
}

impl Admin for Scripted {
    async fn list(&mut self) -> Result<List, AskError> {
        let Says::List(ids) = self.next("list".into()).await? else { unreachable!("the script says a list") };
        let row = |id: &&str| serde_json::json!({"instanceId": id, "appId": "shop", "hostName": id});
        let rows: Vec<_> = ids.iter().map(row).collect();
        let judge = Judge { zone: nexushub_chassis::names::Zone::new("b.localhost", 8443), root: None };
        let text = serde_json::json!({"applications": rows}).to_string();
        list::read(text.as_bytes(), &judge).map_err(AskError::Malformed)
    }

    async fn changes(&mut self, event: u64) -> Result<Heard, AskError> {
        match self.next(event.to_string()).await? {
            Says::Last(last) => Ok(Heard::Last(last)),
            Says::Unchanged(_) => Ok(Heard::Unchanged),
            Says::List(_) | Says::Broken | Says::Slow(_) => {
                unreachable!("the script says an answer about changes")
            }
        }
    }
}

/// What was asked and when, once the script is at its end; and what is in force then.
async fn played(script: Vec<Says>) -> (Vec<(u64, String)>, Vec<String>, Contact) {
    let folder = tempfile::tempdir().unwrap();
    let (owner, handle) = Owner::new(book(), Disk::open(folder.path()).unwrap(), 1);
    tokio::spawn(owner.run(std::future::pending()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let steps = script.len();
    let admin = Scripted { script: script.into(), asked: Arc::clone(&asked), began: Instant::now() };
    let (contact, stands) = watch::channel(Contact::default());
    let follower = tokio::spawn(follow(admin, handle.clone(), contact));
    while asked.lock().unwrap().len() <= steps {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    follower.abort();
    let state = handle.watch().borrow().clone();
    let force = state.listing.entries().map(|entry| entry.id.to_string()).collect();
    let asked = asked.lock().unwrap().iter().map(|(at, what)| (at.as_secs(), what.clone())).collect();
    let contact = stands.borrow().clone();
    (asked, force, contact)
}

fn whats(asked: &[(u64, String)]) -> Vec<&str> {
    asked.iter().map(|(_, what)| what.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_procmgr_has_looked_at_what_is_there_within_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (owner, handle) = Owner::new(book(), Disk::open(folder.path()).unwrap(), 1);
    tokio::spawn(owner.run(std::future::pending()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let admin = Scripted { script: VecDeque::new(), asked: Arc::clone(&asked), began: Instant::now() };
    let nobody = GrpcChannel::new(folder.path().join("procmgr.sock"), None);
    let (contact, _stands) = watch::channel(Contact::default());
    let follower = tokio::spawn(following(admin, handle, contact, nobody));
    while asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    follower.abort();
    let (at, what) = asked.lock().unwrap()[0].clone();
    assert!(at >= PATIENCE && what == "list", "{what} after {at:?}");
}

#[tokio::test]
async fn procmgr_has_looked_at_what_is_there_when_a_snapshot_says_so_and_not_before() {
    let snapshot = |reconciled| {
        let snapshot = InstancesSnapshot { reconciled, ..InstancesSnapshot::default() };
        Ok(WatchInstancesResponse {
            event: Some(Event::Snapshot(snapshot)),
            ..WatchInstancesResponse::default()
        })
    };
    let told = async |messages: Vec<_>| tells_so(futures_util::stream::iter(messages)).await;
    assert!(!told(vec![]).await.unwrap());
    assert!(!told(vec![snapshot(false)]).await.unwrap());
    assert!(told(vec![snapshot(false), snapshot(true)]).await.unwrap());
    assert!(told(vec![snapshot(false), Err(Status::unavailable("gone"))]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_followed_by_the_list_at_once_and_by_the_next_call() {
    let script =
        vec![Says::List(&["a"]), Says::Last(4), Says::List(&["a", "b"]), Says::Last(5), Says::List(&["b"])];
    let (asked, force, contact) = played(script).await;
    assert_eq!(whats(&asked), ["list", "1", "list", "5", "list", "6"]);
    assert_eq!(asked.last().unwrap().0, 0, "{asked:?}");
    assert_eq!(force, ["b"]);
    assert!(contact.heard_unix_ms > 0 && contact.trouble.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_admin_app_that_is_down_from_the_beginning_is_tried_ever_later() {
    let script = (0..6).map(|_| Says::Broken).collect();
    let (asked, force, contact) = played(script).await;
    assert!(asked.iter().all(|(_, what)| what == "list") && force.is_empty());
    let waits: Vec<u64> = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    for (wait, least) in waits.iter().zip([5, 10, 20, 40, 60, 60]) {
        assert!((least..=least + least / 4 + 1).contains(wait), "{waits:?}");
    }
    assert!(contact.trouble.unwrap().contains("502"));
}

#[tokio::test(start_paused = true)]
async fn an_admin_app_that_takes_its_time_to_fail_is_tried_ever_later_too() {
    let slow = Duration::from_millis(1_200);
    for first in [vec![], vec![Says::List(&["a"]), Says::Last(4), Says::List(&["a"])]] {
        let mut script = first;
        let before = script.len();
        script.extend((0..4).map(|_| Says::Slow(slow)));
        let (asked, ..) = played(script).await;
        let waits = asked[before..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect::<Vec<_>>();
        assert!(waits.iter().zip([5, 10, 20, 40]).all(|(wait, least)| *wait > least), "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_leaves_what_was_listed() {
    let script = vec![
        Says::List(&["a", "b"]),
        Says::Last(4),
        Says::Broken,
        Says::Broken,
        Says::List(&["a", "b", "c"]),
    ];
    let (asked, force, contact) = played(script).await;
    assert_eq!(whats(&asked), ["list", "1", "list", "list", "list", "5"], "the change is not lost");
    assert_eq!((force.len(), contact.trouble), (3, None));
}

#[tokio::test(start_paused = true)]
async fn instant_answers_without_news_make_no_busy_loop() {
    let mut script = vec![Says::List(&["a"]), Says::Last(4), Says::List(&["a"])];
    script.extend((0..9).map(|n| if n % 2 == 0 { Says::Last(4) } else { Says::Unchanged(Duration::ZERO) }));
    let (asked, _, _) = played(script).await;
    let took = asked.last().unwrap().0;
    assert!(took >= 5 + 10 + 20 + 40 + 5 * 60, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_always_open_while_nothing_changes() {
    let mut script = vec![Says::List(&["a"]), Says::Last(4), Says::List(&["a"])];
    script.extend((0..10).map(|_| Says::Unchanged(Duration::from_secs(50))));
    let (asked, _, _) = played(script).await;
    assert_eq!(asked.last().unwrap(), &(500, "5".to_owned()), "{asked:?}");
}
