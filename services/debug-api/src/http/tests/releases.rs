//! Releases, and the way back to one.

use nexushub_proto::procmgr::{InstanceStatus, NextGeneration, State};

use super::*;
use crate::testing::sha256;

/// Id, state and health of each.
async fn told(world: &World, id: &str) -> Vec<(String, String, bool)> {
    let (code, text) = world.call("GET", &format!("/debug/application/{id}/releases"), "").await;
    assert_eq!(code, OK, "{text}");
    let text_of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let releases = json(&text)["releases"].clone();
    let releases = releases.as_array().unwrap().iter();
    releases.map(|one| (text_of(&one["id"]), text_of(&one["state"]), one["healthy"] == true)).collect()
}

async fn back(world: &World, id: &str, query: &str) -> (StatusCode, String) {
    world.call("POST", &format!("/debug/application/{id}/rollback{query}"), "").await
}

fn runs(world: &World, id: &str) -> String {
    let release = world.fakes.instances.lock().unwrap()[id].release.clone();
    let text = std::fs::read_to_string(format!("{release}/bin/app")).unwrap();
    text.trim_start_matches("#!/bin/sh\n").to_owned()
}

#[tokio::test]
async fn the_way_back_leads_past_what_never_came_up_to_what_did() {
    let world = world();
    let id = world.create("a", "a").await;
    assert_eq!(told(&world, &id).await, []);
    let (code, text) = back(&world, &id, "").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(text.starts_with("No earlier release was healthy; name one"), "{text}");
    world.push(&id, &package("v1")).await;
    world.until_healthy(&id).await;
    *world.fakes.fails.lock().unwrap() = true;
    for version in ["v2", "v3"] {
        world.push(&id, &package(version)).await;
    }
    let all = told(&world, &id).await;
    let states: Vec<_> = all.iter().map(|(_, state, healthy)| (state.as_str(), *healthy)).collect();
    assert_eq!(states, [("current", false), ("earlier", false), ("earlier", true)]);
    *world.fakes.fails.lock().unwrap() = false;
    let (code, text) = back(&world, &id, "").await;
    assert_eq!((code, json(&text)["release"].as_str()), (OK, Some(&*all[2].0)), "{text}");
    assert_eq!(runs(&world, &id), "v1");
    let (code, text) = back(&world, "a", &format!("?release={}", all[0].0)).await;
    assert_eq!((code, json(&text)["applicationId"].as_str()), (OK, Some(&*id)), "{text}");
    assert_eq!(runs(&world, &id), "v3");
    let (code, text) = back(&world, &id, "?release=none").await;
    assert_eq!((code, text.starts_with("Release not found: none; see")), (StatusCode::NOT_FOUND, true));
    assert_eq!(world.releases(&id).len(), 3, "nothing was unpacked again, nothing was lost");
    assert_eq!(back(&world, "nobody", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_release_that_is_gone_back_to_is_known_when_its_package_is_installed_again() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v1", "v2"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    assert_eq!(back(&world, &id, "").await.0, OK);
    assert_eq!(runs(&world, &id), "v1");
    assert_eq!(world.push(&id, &package("v2")).await.0, OK, "what is brought anew is installed as ever");
    assert_eq!((runs(&world, &id), world.releases(&id).len()), ("v2".to_owned(), 2));
    let current = told(&world, &id).await[0].0.clone();
    world.call("POST", &format!("/debug/application/{id}/stop"), "").await;
    world.until(&id, "stopped").await;
    assert_eq!(back(&world, &id, &format!("?release={current}")).await.0, OK, "the current one starts again");
    world.until(&id, "running").await;
}

#[tokio::test]
async fn a_rollback_that_provider_refuses_is_undone_and_one_that_it_misses_is_made_up_for() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v1", "v2"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    let before = told(&world, &id).await;
    world.fakes.refusals.lock().unwrap().push(Status::already_exists("host name a is taken"));
    let (code, text) = back(&world, &id, "").await;
    assert_eq!((code, &*text), (StatusCode::CONFLICT, "Installation failed: host name a is taken\n"));
    assert_eq!((told(&world, &id).await, world.releases(&id).len()), (before.clone(), 2));
    world.until(&id, "running").await;
    assert_eq!(back(&world, &id, "").await.0, OK);
    let world = world.restarted();
    world.until(&id, "running").await;
    assert_eq!(told(&world, &id).await[0].0, before[1].0, "a restart of the daemon changes nothing");
    std::fs::remove_dir_all(world.hub.folders.release(&id, &before[0].0)).unwrap();
    let (code, text) = back(&world, &id, "").await;
    assert_eq!(code, StatusCode::NOT_FOUND, "{text}");
}

#[tokio::test]
async fn after_a_rollback_an_install_means_what_was_gone_back_to_until_another_package_comes() {
    let world = world();
    let id = world.create("a", "a").await;
    let (old, new) = (package("v1"), package("v2"));
    for version in [&old, &new] {
        world.push(&id, version).await;
        world.until_healthy(&id).await;
    }
    let told = || async {
        let text = world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1;
        json(&text)["fileSha256"].as_str().unwrap().to_owned()
    };
    assert_eq!(told().await, sha256(&new));
    assert_eq!(back(&world, &id, "").await.0, OK);
    assert_eq!(told().await, sha256(&old), "who asks whether it is there already is told the truth");
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v1".to_owned()));
    world.chunk(&id, (0, 2), &md5(&new), &new[..9]).await;
    let none = refused(BAD, "No package uploaded for this application");
    assert_eq!(world.install(&id).await, none, "half of another one");
    world.chunk(&id, (1, 2), &md5(&new), &new[9..]).await;
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v2".to_owned()));

    world.chunk(&id, (0, 1), &md5(&package("v3")), &package("v3")).await;
    let current = self::told(&world, &id).await[0].0.clone();
    assert_eq!(back(&world, &id, &format!("?release={current}")).await.0, OK);
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v2".to_owned()), "not what only came");
    assert_eq!(back(&world, &id, "").await.0, OK);
    let world = world.restarted();
    world.until(&id, "running").await;
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v1".to_owned()));
}

#[tokio::test]
async fn an_install_that_says_what_it_is_about_installs_nothing_else_whatever_others_did_meanwhile() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v1", "v2"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    let about = async |digest: &str| {
        world.call("POST", &format!("/debug/application/{id}/install?sha256={digest}"), "").await
    };
    let (new, current) = (package("v3"), told(&world, &id).await[0].0.clone());
    for somebody in [format!("?release={current}"), String::new()] {
        world.chunk(&id, (0, 1), &md5(&new), &new).await;
        assert_eq!(back(&world, &id, &somebody).await.0, OK, "somebody starts it, or rolls it back");
        let (code, text) = about(&sha256(&new)).await;
        assert_eq!(code, StatusCode::CONFLICT, "{text}");
        assert!(text.contains(&sha256(&new)) && text.ends_with("; upload it again\n"), "{text}");
    }
    assert_eq!(runs(&world, &id), "v1");
    world.chunk(&id, (0, 1), &md5(&new), &new).await;
    assert_eq!((about(&sha256(&new)).await.0, runs(&world, &id)), (OK, "v3".to_owned()));
    assert_eq!(about("x").await, refused(BAD, "Invalid query: use ?sha256=DIGEST"));
}

#[tokio::test]
async fn a_rollback_that_is_undone_leaves_what_was_uploaded_last_what_an_install_means() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v1", "v2"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    world.fakes.refusals.lock().unwrap().push(Status::already_exists("host name a is taken"));
    assert_eq!(back(&world, &id, "").await.0, StatusCode::CONFLICT);
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v2".to_owned()));
    let text = world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1;
    assert_eq!(json(&text)["fileSha256"], sha256(&package("v2")));
}

#[tokio::test]
async fn a_resumable_upload_that_became_a_package_is_no_more_once_another_was_gone_back_to() {
    let world = world();
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    world.until_healthy(&id).await;
    let (fields, new) = ([("tus-resumable", "1.0.0")], package("v2"));
    let length = new.len().to_string();
    let begin = [fields[0], ("upload-length", &*length)];
    let begun = world.ask("POST", &format!("/debug/application/{id}/files"), &begin, "").await;
    let place = begun.field("location").to_owned();
    let bytes = [fields[0], ("upload-offset", "0"), ("content-type", "application/offset+octet-stream")];
    assert_eq!(world.ask("PATCH", &place, &bytes, new).await.status, StatusCode::NO_CONTENT);
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v2".to_owned()));
    assert_eq!(world.ask("HEAD", &place, &fields, "").await.status, OK, "it may be asked for");
    assert_eq!(back(&world, &id, "").await.0, OK);
    assert_eq!(world.ask("HEAD", &place, &fields, "").await.status, StatusCode::NOT_FOUND, "bring it again");
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v1".to_owned()));
}

/// procmgr says that the release that should run fails beside the one that serves, as this generation.
fn fails_beside(world: &World, id: &str, serving: &str, (generation, restarts): (u64, u32)) {
    let next = NextGeneration {
        generation,
        release: world.fakes.instances.lock().unwrap()[id].release.clone(),
        state: State::Failed.into(),
        reason: "exited with code 3".to_owned(),
        last_words: "no such table".to_owned(),
        restarts,
        retry_unix_ms: 9,
        ..NextGeneration::default()
    };
    world.fakes.says(InstanceStatus {
        id: id.to_owned(),
        state: State::Running.into(),
        release: serving.to_owned(),
        next: Some(next),
        ..InstanceStatus::default()
    });
}

#[tokio::test]
async fn a_release_that_never_answers_beside_one_that_does_is_given_up_and_everybody_is_told_why() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v0", "v1"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    let serving = world.fakes.instances.lock().unwrap()[&id].release.clone();
    *world.fakes.fails.lock().unwrap() = true; // so that it is not seen to be healthy
    world.push(&id, &package("v2")).await;
    fails_beside(&world, &id, &serving, (2, 2));
    assert_eq!(runs(&world, &id), "v2", "it may come up yet");
    let broken = told(&world, &id).await[0].0.clone();
    *world.fakes.fails.lock().unwrap() = false;
    let working = world.hub.find(&id).unwrap();
    let working = working.work.lock().await;
    fails_beside(&world, &id, &serving, (3, 3));
    world.until(&id, "failed").await;
    assert_eq!(runs(&world, &id), "v2", "somebody is at it");
    drop(working);
    let given_up = async {
        while runs(&world, &id) != "v1" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), given_up).await.unwrap();

    let world = world.restarted();
    let status =
        || async { json(&world.call("GET", &format!("/debug/application/{id}/status"), "").await.1) };
    let said = status().await;
    let words = (said["status"].as_str(), said["error"].as_str(), said["healthCheck"].as_str());
    assert_eq!(words, (Some("failed"), Some("exited with code 3\nno such table"), None));
    let all = told(&world, &id).await;
    let states: Vec<_> = all.iter().map(|(_, state, healthy)| (state.as_str(), *healthy)).collect();
    assert_eq!(states, [("current", true), ("earlier", false), ("earlier", true)]);
    assert_eq!(all[1].0, broken);

    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v2".to_owned()), "tried anew");
    assert_eq!(back(&world, &id, "").await.0, OK);
    assert_eq!(runs(&world, &id), "v1");
    world.until(&id, "running").await;
}

#[tokio::test]
async fn the_way_back_from_what_was_given_up_is_the_one_that_serves() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v0", "v1"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    let app = world.hub.find(&id).unwrap();
    let serving = app.record().release.unwrap().name;
    *world.fakes.fails.lock().unwrap() = true;
    world.push(&id, &package("v2")).await;
    *world.fakes.fails.lock().unwrap() = false;
    world.hub.change(&app, |record| record.give_up(&serving, "broken".to_owned())).await.unwrap();
    let path = format!("/debug/application/{id}/install-package");
    let (code, text) = world.call("POST", &path, "{}").await;
    assert!(code != OK && text.contains("its newest release was given up (broken)"), "{code} {text}");
    let (code, text) = back(&world, &id, "").await;
    assert_eq!((code, json(&text)["release"].as_str()), (OK, Some(&*serving)), "{text}");
    assert_eq!((runs(&world, &id), app.record().failed), ("v1".to_owned(), None));
    assert_eq!((world.install(&id).await.0, runs(&world, &id)), (OK, "v1".to_owned()), "for good");
}

#[tokio::test]
async fn a_release_that_is_brought_again_is_judged_by_its_new_starts() {
    let world = world();
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    world.until_healthy(&id).await;
    let serving = world.fakes.instances.lock().unwrap()[&id].release.clone();
    *world.fakes.fails.lock().unwrap() = true; // so that it is not seen to be healthy
    world.push(&id, &package("v2")).await;
    let app = world.hub.find(&id).unwrap();
    let broken = app.record().release.unwrap();
    let says = async |generation, restarts| {
        fails_beside(&world, &id, &serving, (generation, restarts));
        let is_it = |next: &NextGeneration| (next.generation, next.restarts) == (generation, restarts);
        let mut live = world.hub.live.clone();
        let said = live.wait_for(|live| live.get(&id).and_then(|live| live.next.as_ref()).is_some_and(is_it));
        said.await.unwrap();
    };
    let word = async || {
        let text = world.call("GET", &format!("/debug/application/{id}/status"), "").await.1;
        json(&text)["status"].as_str().unwrap().to_owned()
    };
    let working = app.work.lock().await; // nothing is given up meanwhile
    says(7, 3).await;
    assert_eq!(word().await, "failed");
    let serves = serving.rsplit('/').next().unwrap();
    world.hub.change(&app, |record| record.give_up(serves, "broken".to_owned())).await.unwrap();
    drop(working);
    assert_eq!(back(&world, &id, &format!("?release={}", broken.name)).await.0, OK);
    let _working = app.work.lock().await;
    says(7, 3).await;
    assert_eq!(word().await, "pending", "procmgr has not heard of it yet");
    assert!(world.hub.news(&app).unwrap().next.is_none());
    for (generation, restarts) in [(7, 4), (8, 3)] {
        says(generation, restarts).await;
        assert_eq!(word().await, "failed", "a start that ended before it had a number counts, too");
    }
}

#[tokio::test]
async fn a_start_of_what_is_current_is_noted_as_that_and_a_way_back_as_one() {
    let world = world();
    let id = world.create("a", "a").await;
    for version in ["v1", "v2"] {
        world.push(&id, &package(version)).await;
        world.until_healthy(&id).await;
    }
    let current = told(&world, &id).await[0].0.clone();
    assert_eq!(back(&world, &id, &format!("?release={current}")).await.0, OK);
    assert_eq!(back(&world, &id, "").await.0, OK);
    let folder = nexushub_chassis::audit::folder(world.state.path());
    let noted = async {
        loop {
            let all = nexushub_chassis::audit::tail(&folder, 9).unwrap_or_default();
            let what: Vec<_> = all.into_iter().map(|entry| entry.what).collect();
            if what.iter().any(|what| what == "application.rollback") {
                return what; // it is written after the answer
            }
            tokio::task::yield_now().await;
        }
    };
    let noted = tokio::time::timeout(Duration::from_secs(30), noted).await.unwrap();
    assert_eq!(noted[noted.len() - 2..], ["application.start", "application.rollback"]);
}
