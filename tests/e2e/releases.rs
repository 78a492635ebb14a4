//! What packages say of themselves, what is said of those that can't be used, and the way back to an earlier release.

use std::fs;

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    Platform, Process, Protocol,
    package::{Package, tar_zst},
    soon, workshop,
};
use serde_json::Value;

use crate::push::runs_at;

const MANIFEST: &str = r#"
manifest = 1
name = "Shop"
version = "1.4.0"
static = "web/dist"
spa = true

[env]
MODE = "demo"

[limits]
open_files = 200
"#;

fn probe() -> Vec<u8> {
    fs::read(workshop::program("nexushub-probe")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_runs_as_its_manifest_says_and_a_page_that_is_not_there_is_the_apps_own() {
    let platform = Platform::start();
    let developer = platform.developer();
    let probe = probe();
    let package = tar_zst(&[
        ("./bin/app", &probe, 0o755),
        ("./nexushub.toml", MANIFEST.as_bytes(), 0o644),
        ("./web/dist/index.html", b"<p>the shop", 0o644),
        ("./web/dist/shop.css", b"p {}", 0o644),
    ]);
    let id = developer.push("shop", &package).await;
    runs_at(&platform, "shop.debug", None).await;
    let https = platform.https();
    assert_eq!(https.get("shop.debug", "/shop.css").await.text(), "p {}");
    for page in ["/", "/carts/7"] {
        let request = Request::get(page).header("accept", "text/html").body(Full::default()).unwrap();
        let answer = https.send(Protocol::Http1, "shop.debug", request).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "<p>the shop".to_owned()), "{page}");
    }
    assert_eq!(https.post("shop.debug", "/public/sh", "echo $MODE").await.text(), "demo\n");
    let kept = developer.get(&id, "/releases").await.json()["releases"][0].clone();
    assert_eq!((kept["version"].as_str(), kept["name"].as_str()), (Some("1.4.0"), Some("Shop")), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_told_in_words_and_what_runs_goes_on() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.push("shop", &Package::probe().bytes()).await;
    let old = runs_at(&platform, "shop.debug", None).await;
    let (mut foreign, probe) = (probe(), probe());
    foreign[18] = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let with = |manifest: &str| Package::probe().file("nexushub.toml", manifest.as_bytes()).bytes();
    let packages = [
        ("this machine is", tar_zst(&[("bin/app", &foreign, 0o755)])),
        ("bin/app: it is not executable", tar_zst(&[("bin/app", &probe, 0o644)])),
        ("bin/app: it is not executable", Package::default().file("bin/app", &probe).bytes()),
        ("bin/app is neither a program", tar_zst(&[("bin/app", b"echo hello", 0o755)])),
        ("needs the interpreter /no/such", tar_zst(&[("bin/app", b"#!/no/such\n", 0o755)])),
        ("../x: it leads out", Package::probe().file("../x", b"").bytes()),
        ("duplicate entry: ./bin/app", tar_zst(&[("bin/app", &probe, 0o755), ("./bin/app", b"", 0o755)])),
        ("nexushub.toml, line 2: unknown field `hosts`", with("spa = false\nhosts = []")),
        (
            "key `limits.memory_bytes`: packages may ask for",
            with("limits = { memory_bytes = 1099511627776 }"),
        ),
        ("variable `PORT` is set by the platform itself", with("env = { PORT = \"1\" }")),
        ("health path", with("health = { path = \"status\" }")),
    ];
    for (why, package) in packages {
        developer.upload(&id, &package).await;
        let answer = developer.post(&id, "/install").await;
        assert_eq!(answer.status, 500, "{why}: {}", answer.text());
        assert!(answer.text().contains(why), "{why}: {}", answer.text());
    }
    assert_eq!(runs_at(&platform, "shop.debug", None).await.pid, old.pid);
}

/// Waits until the newest release of the only app is given up, and kills what serves in its place: that comes back, and who asks is told
/// what became of the newest. Its id.
async fn is_given_up(platform: &Platform) -> String {
    let developer = platform.developer();
    let id = developer.list().await[0]["id"].as_str().unwrap().to_owned();
    let given_up = async {
        let current = async || developer.get(&id, "/releases").await.json()["releases"][0]["healthy"] == true;
        while !current().await {}
    };
    soon("the broken one is given up", given_up).await;
    let serving = runs_at(platform, "shop", None).await;
    Process::open(serving.pid).unwrap().kill();
    let back = runs_at(platform, "shop", Some(serving.pid)).await;
    let status = developer.status(&id).await;
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().unwrap().ends_with("\nno such table"), "{status}");
    let details = async || developer.get(&id, "/status?details=true").await.json()["details"].clone();
    soon("what serves is told, too", async {
        while details().await["processId"] != back.pid || details().await["routed"] != true {}
    })
    .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_leads_to_the_last_release_that_was_healthy_without_an_upload() {
    let platform = Platform::start();
    let home = platform.home.path().to_owned();
    let source = platform.release("source");
    let run = |words: &[&str]| {
        let output = workshop::nexushub(&home, words);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let page = source.join("static/page.txt");
    fs::create_dir_all(page.parent().unwrap()).unwrap();
    let push = || run(&["push", source.to_str().unwrap(), "--name", "shop"]);
    for version in ["one", "two"] {
        fs::write(&page, version).unwrap();
        let (pushed, said) = push();
        assert!(pushed, "{said}");
    }
    fs::write(source.join("bin/app"), "#!/bin/sh\necho 'no such table'\nexit 3\n").unwrap();
    assert!(!push().0, "it does not come up");
    let told = async |page: &str| {
        // The proxy hears of a new generation a moment after procmgr tells of it.
        soon(page, async { while platform.https().get("shop", "/page.txt").await.text() != page {} }).await;
    };
    told("two").await; // the one before goes on
    let id = is_given_up(&platform).await;
    told("two").await; // it is what comes back

    let (listed, said) = run(&["releases", "shop", "-o", "json"]);
    assert!(listed, "{said}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["version"], 1);
    let releases = answer["releases"].as_array().unwrap();
    let stands: Vec<_> =
        releases.iter().map(|one| (one["state"].as_str().unwrap(), one["healthy"] == true)).collect();
    assert_eq!(stands, [("current", true), ("earlier", false), ("earlier", true)], "{said}");
    let (table, _) = run(&["releases", "shop"]);
    assert!(table);

    let (back, said) = run(&["rollback", "shop"]);
    assert!(back && said.contains(releases[0]["id"].as_str().unwrap()), "{said}");
    told("two").await;
    platform.developer().until(&id, "running").await;
    let one = releases[2]["id"].as_str().unwrap();
    let (back, said) = run(&["rollback", "shop", one]);
    assert!(back, "{said}");
    told("one").await;
    let (back, said) = run(&["rollback", "shop", "nothing-like-it"]);
    assert!(!back && said.contains("Release not found: nothing-like-it"), "{said}");
    for name in nexushub_e2e::DAEMONS {
        platform.kill(name).await;
    }
    told("one").await; // whoever is killed
    for words in [["start", "shop"], ["stop", "shop"], ["start", "shop"]] {
        let (done, said) = run(&words);
        assert!(done, "{said}");
    }
    told("one").await; // whoever starts it, though there is a newer one
    let (back, said) = run(&["rollback", "shop"]);
    assert!(back, "{said}");
    told("two").await;
}
