//! Installs, restarts, removals.

use super::*;
use crate::{
    disk::Held,
    folders::blocking,
    room::{self, Aside},
    unpack::Room,
};

#[tokio::test]
async fn an_install_runs_the_app_once_however_often_it_is_asked_for() {
    let world = world();
    let id = world.create("a", "shop.debug").await;
    let (code, text) = world.push(&id, &package("v1")).await;
    let reply = json(&text);
    assert_eq!(
        (code, reply["status"].as_str(), reply["applicationId"].as_str()),
        (OK, Some("running"), Some(&*id))
    );
    assert_eq!(reply["message"], "Application installed and started successfully");
    for call in ["install", "install-dev"] {
        let (code, text) = world.call("POST", &format!("/debug/application/a/{call}"), "ignored").await;
        assert_eq!((code, &json(&text)), (OK, &reply), "idempotent");
    }
    assert_eq!(world.releases(&id).len(), 1);
    world.until(&id, "running").await;
    let status = json(&world.call("GET", &format!("/debug/application/{id}/status"), "").await.1);
    assert_eq!(
        (status["healthCheck"].as_str(), status["port"].as_u64(), status["processId"].as_u64()),
        (Some("healthy"), Some(10_000), Some(42))
    );
    assert_eq!(status["metadata"]["hostName"], "shop.debug");
    let instance = world.fakes.instances.lock().unwrap()[&id].clone();
    assert_eq!(std::fs::read(format!("{}/bin/app", instance.release)).unwrap(), b"#!/bin/sh\nv1");
    assert!(instance.data.ends_with("/db") && std::path::Path::new(&instance.data).is_dir());
    assert!(!world.hub.folders.package(&id).exists(), "the archive has served");
}

#[tokio::test]
async fn a_hot_reload_replaces_the_release_and_keeps_those_that_may_be_gone_back_to() {
    let world = World::new(Config { keep_releases: 2, ..Config::default() });
    let id = world.create("a", "a").await;
    for version in ["v1", "v2", "v3", "v4"] {
        let (code, text) = world.call("POST", &format!("/debug/application/{id}/stop"), "").await;
        assert_eq!((code, json(&text)["status"].as_str()), (OK, Some("stopped")));
        world.until(&id, "stopped").await;
        assert_eq!(world.push(&id, &package(version)).await.0, OK);
        world.until(&id, "running").await;
        let release = world.fakes.instances.lock().unwrap()[&id].release.clone();
        assert!(std::fs::read_to_string(format!("{release}/bin/app")).unwrap().ends_with(version));
    }
    assert_eq!(world.releases(&id).len(), 3);
    world.call("POST", &format!("/debug/application/{id}/stop"), "").await;
    assert_eq!(world.push(&id, &package("v4")).await.0, OK, "unchanged content starts again");
    world.until(&id, "running").await;
}

#[tokio::test]
async fn a_package_that_is_none_changes_nothing() {
    let world = world();
    let id = world.create("a", "a").await;
    let (code, text) = world.push(&id, &zip_of(&[("static/x", b"", 0o644)])).await;
    assert_eq!((code, json(&text)["status"].as_str()), (OK, Some("installed_not_started")));
    assert!(text.contains("bin/app is missing"), "{text}");
    assert_eq!(
        json(&world.call("GET", &format!("/debug/application/{id}/status"), "").await.1)["status"],
        "installed"
    );
    assert_eq!(world.push(&id, &package("v1")).await.0, OK);
    let running = world.fakes.instances.lock().unwrap().clone();
    for bad in [b"no zip".to_vec(), zip_of(&[("../../pwned", b"x", 0o644), ("bin/app", b"", 0o755)])] {
        let (code, text) = world.push(&id, &bad).await;
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.starts_with("Package preparation failed: "), "{text}");
    }
    assert_eq!(*world.fakes.instances.lock().unwrap(), running);
    assert_eq!(world.releases(&id).len(), 1);
    assert_eq!(names(&world.hub.folders.tmp()), Vec::<String>::new());
    world.until(&id, "running").await;
}

#[tokio::test]
async fn what_provider_refuses_is_undone() {
    let world = world();
    let id = world.create("a", "a").await;
    world
        .fakes
        .refusals
        .lock()
        .unwrap()
        .push(Status::already_exists("host name a is taken by static instance s"));
    let (code, text) = world.push(&id, &package("v1")).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(text, "Installation failed: host name a is taken by static instance s\n");
    assert_eq!((world.releases(&id).len(), world.fakes.host(&id)), (0, None));
    let (code, _) = world.call("POST", &format!("/debug/application/{id}/install"), "").await;
    assert_eq!((code, world.fakes.host(&id).as_deref()), (OK, Some("a")), "the package is still there");
}

#[tokio::test(start_paused = true)]
async fn an_install_outlasts_a_restart_of_provider() {
    let world = world();
    let id = world.create("a", "a").await;
    world.fakes.refusals.lock().unwrap().extend((0..8).map(|_| Status::unavailable("connection refused")));
    assert_eq!(world.push(&id, &package("v1")).await.0, OK);
    world.fakes.refusals.lock().unwrap().extend((0..60).map(|_| Status::unavailable("connection refused")));
    let (code, text) = world.push(&id, &package("v2")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.starts_with("Installation failed: provider does not answer"), "{text}");
    world.until(&id, "running").await;
    drop(world.hub.list()[0].work.lock().await);
    assert!(world.hub.list()[0].record().settled, "finished in the background");
}

#[tokio::test(start_paused = true)]
async fn provider_is_asked_in_the_background_by_one_task_however_often_an_install_is_retried() {
    let world = World::new(Config { provider_wait_ms: 0, ..Config::default() });
    let id = world.create("a", "a").await;
    let away = || Status::unavailable("connection refused");
    world.fakes.refusals.lock().unwrap().extend((0..1_000).map(|_| away()));
    assert_eq!(world.push(&id, &package("v1")).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    for _ in 0..20 {
        world.call("POST", &format!("/debug/application/{id}/install"), "").await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = world.fakes.refusals.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = before - world.fakes.refusals.lock().unwrap().len();
    assert!((9..=11).contains(&asked), "once a second, not {asked} times in ten");
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_in_the_background_is_tidied_up() {
    let world = World::new(Config { provider_wait_ms: 0, keep_releases: 1, ..Config::default() });
    let id = world.create("a", "a").await;
    for version in ["v1", "v2"] {
        assert_eq!(world.push(&id, &package(version)).await.0, OK);
    }
    world.until(&id, "running").await;
    let archive = world.hub.folders.package(&id);
    let away = || Status::unavailable("connection refused");
    for (version, newer) in [("v3", false), ("v4", true)] {
        world.fakes.refusals.lock().unwrap().extend((0..8).map(|_| away()));
        assert_eq!(world.push(&id, &package(version)).await.0, StatusCode::INTERNAL_SERVER_ERROR);
        if newer {
            let zip = package("v5");
            assert_eq!(world.chunk(&id, (0, 1), &md5(&zip), &zip).await.0, OK);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(world.hub.find(&id).unwrap().record().settled);
        assert_eq!(world.releases(&id).len(), 2, "{version}");
        assert_eq!(archive.exists(), newer, "an archive that is not installed yet stays");
    }
}

#[tokio::test]
async fn an_application_that_somebody_else_is_deleting_is_no_obstacle_to_its_successor() {
    let world = world();
    let id = world.create("a", "a").await;
    let app = world.hub.find(&id).unwrap();
    world.hub.delete(&app).await.unwrap();
    assert!(world.hub.make_way(&app).await.is_ok());
}

#[tokio::test]
async fn a_limit_of_provider_is_a_final_answer() {
    let world = world();
    let id = world.create("a", "a").await;
    let full = Status::failed_precondition("there are 4 debug instances");
    world.fakes.refusals.lock().unwrap().push(full);
    let (code, text) = world.push(&id, &package("v1")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text, "Installation failed: there are 4 debug instances\n");
    assert_eq!(world.releases(&id).len(), 0, "undone");
}

#[tokio::test]
async fn a_deleted_application_leaves_nothing_behind() {
    let world = world();
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    let app = world.hub.find(&id).unwrap();
    assert_eq!(world.call("DELETE", "/debug/application/a", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.fakes.host(&id), None);
    Arc::clone(&world.hub).bury(app, true).await;
    let folders = &world.hub.folders;
    assert!(!folders.app(&id).exists() && !folders.upload(&id).exists() && !folders.record(&id).exists());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_application_expires_and_a_status_call_puts_it_off() {
    let world = World::new(Config { expiry_s: 100, ..Config::default() });
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.call("GET", &format!("/debug/application/{id}/status"), "").await.0, OK);
    }
    tokio::time::sleep(Duration::from_secs(110)).await;
    assert_eq!(world.call("GET", &format!("/debug/application/{id}"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.fakes.host(&id), None);
}

/// What the audit log says of expiry, the oldest first, once it has told of a removal.
async fn expiries(world: &World) -> Vec<String> {
    let folder = nexushub_chassis::audit::folder(world.state.path());
    loop {
        let noted = nexushub_chassis::audit::tail(&folder, 99).unwrap_or_default();
        let what = noted.into_iter().map(|entry| entry.what);
        let what: Vec<String> = what.filter(|what| what.starts_with("application.expir")).collect();
        if what.last().is_some_and(|last| last == "application.expire") {
            return what;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_application_is_announced_once_for_each_time_that_nobody_cares() {
    let world = World::new(Config { expiry_s: 100, expiry_warning_s: 30, ..Config::default() });
    let id = world.create("a", "a").await;
    let app = world.hub.find(&id).unwrap();
    let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    wait(65).await;
    assert!(!app.state().warned, "too early");
    wait(20).await;
    assert!(app.state().warned);
    world.call("GET", &format!("/debug/application/{id}"), "").await; // is no use
    world.call("GET", &format!("/debug/application/{id}/status"), "").await;
    assert!(!app.state().warned);
    wait(90).await;
    assert!(app.state().warned);
    wait(20).await;
    assert!(world.hub.list().is_empty());
    assert_eq!(
        expiries(&world).await,
        ["application.expiring", "application.expiring", "application.expire"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_application_whose_log_is_read_expires_only_after_its_reader_has_left() {
    let world = World::new(Config { expiry_s: 10, keepalive_ms: 3_600_000, ..Config::default() });
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    world.fakes.logged(1, 1);
    let request = world.request("GET", &format!("/debug/application/{id}/logs"));
    let reader = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(reader.status(), OK);
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(world.hub.list().len(), 1);
    drop(reader);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.hub.list().len(), 1, "its time begins when the reader leaves");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(world.hub.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_answered_at_once_though_the_app_takes_its_time() {
    let world = world();
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    world.until(&id, "running").await;
    world.fakes.lingers.store(true, std::sync::atomic::Ordering::Release);
    let began = Instant::now();
    let (code, text) = world.call("POST", &format!("/debug/application/{id}/stop"), "").await;
    assert_eq!((code, json(&text)["status"].as_str()), (StatusCode::ACCEPTED, Some("pending")));
    assert!(began.elapsed() < Duration::from_secs(1), "by the test's own clock");
    world.fakes.gone(&id);
    world.until(&id, "stopped").await;
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_to_be_kept_does_not_expire() {
    let world = World::new(Config { expiry_s: 100, ..Config::default() });
    let body = r#"{"appId":"a","displayName":"A","hostName":"a","dbName":"a.db","keep":true}"#;
    assert_eq!(world.call("POST", "/debug/application", body).await.0, StatusCode::CREATED);
    world.create("b", "b").await;
    tokio::time::sleep(Duration::from_secs(110)).await;
    assert_eq!(world.call("GET", "/debug/application/b", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.call("GET", "/debug/application/a", "").await.0, OK);
}

#[tokio::test]
async fn a_restart_goes_on_with_uploads_installs_and_removals() {
    let world = world();
    let zip = package("v1");
    let half = zip.len() / 2;
    let (running, uploading, deleted) =
        (world.create("a", "a").await, world.create("b", "b").await, world.create("c", "c").await);
    world.push(&running, &zip).await;
    world.chunk(&uploading, (1, 2), &md5(&zip), &zip[half..]).await;
    for (id, change) in [(&running, crate::record::Wanted::Run), (&deleted, crate::record::Wanted::Gone)] {
        let app = world.hub.find(id).unwrap();
        world.hub.change(&app, |record| (record.wanted, record.settled) = (change, false)).await.unwrap();
    }
    world.fakes.instances.lock().unwrap().clear();

    let world = world.restarted();
    assert_eq!(
        world.call("GET", &format!("/debug/application/{deleted}"), "").await.0,
        StatusCode::NOT_FOUND
    );
    world.until(&running, "running").await;
    let (code, text) = world.chunk(&uploading, (0, 2), &md5(&zip), &zip[..half]).await;
    assert_eq!((code, json(&text)["status"].as_str()), (OK, Some("completed")));
    let app = world.hub.find(&uploading).unwrap();
    world.hub.change(&app, |record| record.installing = Some("half".to_owned())).await.unwrap();
    std::fs::create_dir_all(world.hub.folders.release(&uploading, "half")).unwrap();

    let world = world.restarted();
    world.until(&uploading, "running").await;
    assert!(!world.releases(&uploading).contains(&"half".to_owned()));
}

#[tokio::test]
async fn a_manifest_is_what_the_instance_is_given_and_what_provider_refuses_of_it_changes_nothing() {
    let world = world();
    let id = world.create("a", "a").await;
    let with = |manifest: &str| {
        let own = ("nexushub.toml", manifest.as_bytes(), 0o644);
        zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), own])
    };
    let manifest = "version = \"7\"\n[env]\nMODE = \"demo\"\n[limits]\nmemory_bytes = 33554432\n";
    assert_eq!(world.push(&id, &with(manifest)).await.0, OK);
    let given = world.fakes.instances.lock().unwrap()[&id].clone();
    assert_eq!((given.env["MODE"].as_str(), given.limits.unwrap().memory_bytes), ("demo", 32 << 20));
    assert_eq!((given.host_name.as_str(), given.display_name.as_str()), ("a", "A"), "as the developer said");
    for (manifest, why) in [
        ("hostname = \"login\"", "nexushub.toml, line 1: unknown field `hostname`"),
        (
            "[limits]\nmemory_bytes = 999999999999",
            "key `limits.memory_bytes`: packages may ask for 1 to 536870912",
        ),
        ("driver = \"process\"", "packages may not choose process"),
    ] {
        let (code, text) = world.push(&id, &with(manifest)).await;
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.starts_with("Package preparation failed: ") && text.contains(why), "{text}");
    }
    let reserved = Status::invalid_argument("variable `PORT` is set by the platform itself (key `env`)");
    world.fakes.refusals.lock().unwrap().push(reserved);
    let (_, text) = world.push(&id, &with("[env]\nPORT = \"1\"")).await;
    assert!(text.starts_with("Installation failed: variable `PORT` is set by the platform itself"), "{text}");
    assert_eq!((world.fakes.instances.lock().unwrap()[&id].clone(), world.releases(&id).len()), (given, 1));
}

#[tokio::test]
async fn a_package_that_the_disk_has_no_room_for_is_refused_with_both_figures_before_it_is_unpacked() {
    let config = Config { max_upload_disk_percent: 50, ..Config::default() };
    let world = World::on_disk(config, 1 << 20);
    let id = world.create("a", "a").await;
    let with = |zeros: usize| {
        let script = b"#!/bin/sh\n";
        zip_of(&[("bin/app", script, 0o755), ("static/large", &vec![0; zeros - script.len()], 0o644)])
    };
    let text = "Package preparation failed: not enough disk space: it unpacks to 524289 bytes, and 524288 may be taken; free some";
    assert_eq!(
        world.push(&id, &with((512 << 10) + 1)).await,
        refused(StatusCode::INSUFFICIENT_STORAGE, text)
    );
    assert!(names(&world.hub.folders.tmp()).is_empty() && world.releases(&id).is_empty());
    assert_eq!(world.push(&id, &with(512 << 10)).await.0, OK);
}

#[tokio::test]
async fn a_package_is_refused_while_others_that_are_being_unpacked_have_its_room_and_gives_its_own_back() {
    let config = Config { max_upload_disk_percent: 50, ..Config::default() };
    let world = World::on_disk(config, 1 << 20);
    let id = world.create("a", "a").await;
    let mut other = Aside::new(&world.hub);
    let other = blocking(move || other.set_aside(500 << 10).map(|()| other)).await.unwrap();
    let package = zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), ("static/large", &vec![0; 100 << 10], 0o644)]);
    let (status, said) = world.push(&id, &package).await;
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(
        said.to_string().contains("beside the 512000 of other packages that are being unpacked"),
        "{said}"
    );
    drop(other);
    assert_eq!(room::unpacking(&world.hub), Held::default());
    assert_eq!(world.push(&id, &package).await.0, OK);
    assert_eq!(world.push(&id, b"PK\x03\x04 and no more").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(room::unpacking(&world.hub), Held::default());
}
