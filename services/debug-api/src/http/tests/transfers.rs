//! Resumable uploads at their limits, and after the process that took them has ended.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{
    applications::App,
    testing::{Ask, sha256},
    transfer::{About, Ends, Stage},
};

const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
const MEDIA: (&str, &str) = ("content-type", "application/offset+octet-stream");

async fn create(world: &World, id: &str, length: u64) -> Ask {
    let length = length.to_string();
    world.ask("POST", &format!("/debug/application/{id}/files"), &[TUS, ("upload-length", &length)], "").await
}

async fn begun(world: &World, id: &str, length: usize) -> String {
    let ask = create(world, id, length as u64).await;
    assert_eq!(ask.status, StatusCode::CREATED, "{}", ask.text);
    ask.field("location").to_owned()
}

async fn patch(world: &World, path: &str, offset: usize, body: impl Into<Body>) -> Ask {
    world.ask("PATCH", path, &[TUS, MEDIA, ("upload-offset", &offset.to_string())], body).await
}

async fn head(world: &World, path: &str) -> Ask {
    world.ask("HEAD", path, &[TUS], "").await
}

/// A body whose bytes are sent by hand; dropped, it breaks off.
fn by_hand() -> (mpsc::Sender<Result<&'static str, std::io::Error>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::from_stream(ReceiverStream::new(receiver)))
}

fn app(world: &World, id: &str) -> Arc<App> {
    world.hub.find(id).unwrap()
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_before_and_while_it_comes() {
    let world = World::new(Config { max_package_bytes: 1000, ..Config::default() });
    let id = world.create("a", "a").await;
    let over = refused(StatusCode::PAYLOAD_TOO_LARGE, "Upload is too large: the limit is 1000 bytes");
    let ask = create(&world, &id, 1001).await;
    assert_eq!((ask.status, ask.text), over);
    assert_eq!(create(&world, &id, 1000).await.status, StatusCode::CREATED);
    let place = format!("/debug/application/{id}/files");
    let path = world.ask("POST", &place, &[TUS, ("upload-defer-length", "1")], "").await;
    let path = path.field("location").to_owned();
    let ask = patch(&world, &path, 0, vec![0; 1001]).await;
    assert_eq!((ask.status, ask.text), over);
    let stream = tokio_stream::iter([500, 501].map(|bytes| Ok::<_, std::io::Error>(vec![0; bytes])));
    let ask = patch(&world, &path, 0, Body::from_stream(stream)).await;
    assert_eq!((ask.status, ask.text), over, "nobody said how much it would be");
    let fields = [TUS, MEDIA, ("upload-offset", "500"), ("upload-length", "1001")];
    let ask = world.ask("PATCH", &path, &fields, "").await;
    assert_eq!((ask.status, ask.text), over);
    let ask = world.ask("POST", &place, &[("upload-complete", "?1")], vec![0; 1001]).await;
    assert_eq!((ask.status, ask.field("upload-limit")), (over.0, "max-size=1000, max-age=3600"));
}

#[tokio::test]
async fn so_many_uploads_of_an_application_and_of_all_may_be_open() {
    let config = Config { max_transfers_per_application: 2, max_transfers: 3, ..Config::default() };
    let world = World::new(config);
    let (a, b) = (world.create("a", "a").await, world.create("b", "b").await);
    let path = begun(&world, &a, 3).await;
    begun(&world, &a, 3).await;
    let ask = create(&world, &a, 3).await;
    let text = "Too many unfinished uploads of this application: the limit is 2; finish or delete one first";
    assert_eq!((ask.status, ask.text), refused(StatusCode::TOO_MANY_REQUESTS, text));
    begun(&world, &b, 3).await;
    let ask = create(&world, &b, 3).await;
    let text = "Too many unfinished uploads: the limit is 3; finish or delete one first";
    assert_eq!((ask.status, ask.text), refused(StatusCode::TOO_MANY_REQUESTS, text));
    assert_eq!(patch(&world, &path, 0, "abc").await.status, StatusCode::NO_CONTENT);
    begun(&world, &a, 3).await;
    assert_eq!(create(&world, &a, 3).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn of_those_that_became_packages_the_last_is_known() {
    let world = World::new(Config { max_transfers_per_application: 1, ..Config::default() });
    let id = world.create("a", "a").await;
    let mut paths = Vec::new();
    for _ in 0..3 {
        let path = begun(&world, &id, 3).await;
        assert_eq!(patch(&world, &path, 0, "abc").await.status, StatusCode::NO_CONTENT);
        paths.push(path);
    }
    assert_eq!(head(&world, &paths[1]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(head(&world, &paths[2]).await.field("upload-offset"), "3");
    assert_eq!(names(&world.hub.folders.transfers(&id)).len(), 1);
    let world = world.restarted();
    assert_eq!(head(&world, &paths[2]).await.field("upload-offset"), "3");
}

#[tokio::test]
async fn what_would_take_more_of_the_disk_than_uploads_may_is_refused() {
    let config = Config { max_upload_disk_percent: 50, ..Config::default() };
    let world = World::on_disk(config, 4 << 20);
    let id = world.create("a", "a").await;
    let text =
        "Not enough disk space for uploads: unfinished ones may take 50 % of what is free without them";
    let full = refused(StatusCode::INSUFFICIENT_STORAGE, text);
    let ask = create(&world, &id, (2 << 20) + 1).await;
    assert_eq!((ask.status, ask.text), full);
    let first = create(&world, &id, 1 << 20).await;
    let ask = create(&world, &id, (1 << 20) + 1).await;
    assert_eq!((ask.status, ask.text), full, "what was promised to one is not another one's");
    let place = format!("/debug/application/{id}/files");
    let path = world.ask("POST", &place, &[TUS, ("upload-defer-length", "1")], "").await;
    let path = path.field("location").to_owned();
    let length = ((1 << 20) + 1).to_string();
    let fields = [TUS, MEDIA, ("upload-offset", "0"), ("upload-length", &length)];
    let ask = world.ask("PATCH", &path, &fields, "").await;
    assert_eq!((ask.status, ask.text), full);
    assert_eq!(world.ask("DELETE", first.field("location"), &[TUS], "").await.status, StatusCode::NO_CONTENT);
    let megabytes = (0..16).map(|_| Ok::<_, std::io::Error>(vec![0; 1 << 20]));
    let ask = patch(&world, &path, 0, Body::from_stream(tokio_stream::iter(megabytes))).await;
    assert_eq!((ask.status, ask.text), full, "nobody said how much it would be");
    assert_eq!(world.chunk(&id, (0, 1), &md5(b"x"), &[0; 1 << 20]).await, full, "a chunk, too");
}

#[tokio::test]
async fn a_later_request_ends_the_one_that_is_at_it_and_what_came_is_kept() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, 9).await;
    let (sender, body) = by_hand();
    let first = patch(&world, &path, 0, body);
    let second = async {
        sender.send(Ok("abc")).await.unwrap();
        sender.reserve().await.unwrap(); // the first has taken it
        assert_eq!(head(&world, &path).await.field("upload-offset"), "3");
        assert_eq!(patch(&world, &path, 3, "def").await.field("upload-offset"), "6");
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(
        (first.status, first.text),
        refused(StatusCode::CONFLICT, "Upload was taken over by a later request")
    );
    assert_eq!(head(&world, &path).await.field("upload-offset"), "6");
}

#[tokio::test]
async fn a_deleted_upload_or_application_ends_who_is_at_it() {
    let world = world();
    let id = world.create("a", "a").await;
    let application = format!("/debug/application/{id}");
    for (victim, status) in
        [(None, StatusCode::CONFLICT), (Some(application.as_str()), StatusCode::NOT_FOUND)]
    {
        let path = begun(&world, &id, 9).await;
        let (sender, body) = by_hand();
        let deleted = async {
            sender.send(Ok("abc")).await.unwrap();
            sender.reserve().await.unwrap();
            let fields = [TUS];
            let ask = world.ask("DELETE", victim.unwrap_or(&path), &fields, "").await;
            assert_eq!(ask.status, StatusCode::NO_CONTENT);
        };
        let (ended, ()) = tokio::join!(patch(&world, &path, 0, body), deleted);
        assert_eq!(ended.status, status, "{victim:?}");
        assert_eq!(head(&world, &path).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_silent_upload_is_given_up_and_can_be_gone_on_with() {
    let world = World::new(Config { upload_idle_ms: 20, ..Config::default() });
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, 6).await;
    let (sender, body) = by_hand();
    let (ask, sent) = tokio::join!(patch(&world, &path, 0, body), sender.send(Ok("abc")));
    sent.unwrap();
    assert_eq!(
        (ask.status, ask.text),
        refused(StatusCode::REQUEST_TIMEOUT, "Upload made no progress for 20 ms")
    );
    assert_eq!(patch(&world, &path, 3, "def").await.status, StatusCode::NO_CONTENT);
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn uploads_that_nobody_goes_on_with_expire() {
    let world = World::new(Config { upload_life_s: 100, expiry_s: 0, ..Config::default() });
    let id = world.create("a", "a").await;
    let (old, touched) = (begun(&world, &id, 6).await, begun(&world, &id, 6).await);
    assert_eq!(world.chunk(&id, (0, 2), &md5(b"x"), b"x").await.0, OK);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(patch(&world, &touched, 0, "abc").await.status, StatusCode::NO_CONTENT);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(head(&world, &old).await.status, StatusCode::NOT_FOUND);
    assert_eq!(head(&world, &touched).await.field("upload-offset"), "3");
    assert_eq!(names(&world.hub.folders.transfers(&id)).len(), 2, "two files of one upload");
    let status = json(&world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1);
    assert_eq!(status["error"], "no chunk came for 100 s");
    assert!(!world.hub.folders.chunks(&id).exists());
}

#[tokio::test]
async fn an_upload_goes_on_in_the_next_process_where_the_last_one_ended() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let path = begun(&world, &id, zip.len()).await;
    let broken = [Ok("PK"), Err(std::io::Error::other("cut"))];
    let ask = patch(&world, &path, 0, Body::from_stream(tokio_stream::iter(broken))).await;
    assert_eq!((ask.status, ask.text), refused(BAD, "Upload broke off; what came was kept"));
    assert_eq!(patch(&world, &path, 2, zip[2..9].to_vec()).await.status, StatusCode::NO_CONTENT);
    let name = path.rsplit_once('/').unwrap().1;
    let data = world.hub.folders.transfers(&id).join(format!("{name}.data"));
    std::fs::write(world.hub.folders.transfers(&id).join("stray.data"), "x").unwrap();
    std::fs::write(&data, &zip[..11]).unwrap(); // the last process took two bytes more than it told
    let world = world.restarted();
    assert_eq!(head(&world, &path).await.field("upload-offset"), "11");
    assert_eq!(names(&world.hub.folders.transfers(&id)).len(), 2);
    assert_eq!(patch(&world, &path, 11, zip[11..].to_vec()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app(&world, &id).record().package.unwrap().digest(), sha256(&zip));
    assert_eq!(world.install(&id).await.0, OK);
}

#[tokio::test]
async fn a_file_whose_last_byte_came_before_the_end_of_the_process_is_the_package() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let path = begun(&world, &id, zip.len()).await;
    let name = path.rsplit_once('/').unwrap().1;
    std::fs::write(world.hub.folders.transfers(&id).join(format!("{name}.data")), &zip).unwrap();
    let world = world.restarted();
    assert_eq!(head(&world, &path).await.field("upload-offset"), zip.len().to_string());
    assert_eq!(world.install(&id).await.0, OK);
}

#[tokio::test]
async fn a_file_that_was_about_to_be_the_package_is_it_in_the_next_process() {
    for renamed in [false, true] {
        let world = world();
        let (id, zip) = (world.create("a", "a").await, package("v1"));
        let path = begun(&world, &id, zip.len()).await;
        let folders = &world.hub.folders;
        let name = folders.transfers(&id).join(path.rsplit_once('/').unwrap().1);
        let file = crate::upload::File { hash: None, sha256: Sha256Hex::parse(&sha256(&zip)), total: 1 };
        let about = About::new(Ends::AtLength, Some(zip.len() as u64), None);
        let about = About { stage: Stage::Placing(file), ..about };
        std::fs::write(name.with_extension("json"), serde_json::to_vec(&about).unwrap()).unwrap();
        std::fs::write(name.with_extension("data"), &zip).unwrap();
        if renamed {
            std::fs::rename(name.with_extension("data"), folders.package(&id)).unwrap();
        }
        let world = world.restarted();
        assert_eq!(world.install(&id).await.0, OK, "renamed: {renamed}");
        assert_eq!(head(&world, &path).await.field("upload-offset"), zip.len().to_string());
    }
}

#[tokio::test]
async fn an_upload_lives_as_long_as_it_may_and_as_its_application() {
    for (upload_life_s, expiry_s, keep, life) in
        [(100, 50, false, 50), (100, 50, true, 100), (100, 0, false, 100), (10, 50, false, 10)]
    {
        let world = World::new(Config { upload_life_s, expiry_s, ..Config::default() });
        let body =
            format!(r#"{{"appId":"a","displayName":"A","hostName":"a","dbName":"a.db","keep":{keep}}}"#);
        assert_eq!(world.call("POST", "/debug/application", body).await.0, StatusCode::CREATED);
        let ask = world.ask("OPTIONS", "/debug/application/a/files", &[], "").await;
        assert_eq!(ask.field("upload-limit"), format!("max-size=536870912, max-age={life}"));
    }
}

#[tokio::test]
async fn who_uploads_and_what_came_of_it_is_noted() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, 3).await;
    patch(&world, &path, 0, "abc").await;
    let digest = format!("sha-256=:{}:", data_encoding::BASE64.encode(&[7; 32]));
    let fields = [TUS, ("upload-length", "3"), ("repr-digest", &digest)];
    let path = world.ask("POST", &format!("/debug/application/{id}/files"), &fields, "").await;
    patch(&world, path.field("location"), 0, "abc").await;
    loop {
        let noted = audited(&world); // it is written after the answer
        if noted.len() == 2 {
            assert!(noted[0].contains(&sha256(b"abc")) && noted[1].contains("SHA-256"), "{noted:?}");
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn audited(world: &World) -> Vec<String> {
    let folder = world.state.path().join("audit");
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
    let lines = names(&folder).into_iter().map(read).collect::<String>();
    lines.lines().filter(|line| line.contains("application.upload")).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn bytes_that_come_for_longer_than_an_application_lives_keep_it_however_they_come() {
    let world = World::new(Config { expiry_s: 10, ..Config::default() });
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, 300).await;
    let (chunk, resumable) = (format!("/debug/application/{id}/upload"), ("upload-offset", "0"));
    let form = [("content-type", "multipart/form-data; boundary=XX")];
    for (method, path, fields) in [("PATCH", &path, &[TUS, MEDIA, resumable][..]), ("POST", &chunk, &form)] {
        let (sender, body) = by_hand();
        let slow = async {
            for _ in 0..100 {
                sender.send(Ok("abc")).await.unwrap();
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            assert_eq!(world.hub.list().len(), 1, "{method}");
            drop(sender);
        };
        let request = fields
            .iter()
            .fold(world.request(method, path), |request, (name, value)| request.header(*name, *value));
        tokio::join!(world.send(request.body(body).unwrap()), slow);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.hub.list().len(), 1, "its time begins when the last byte came");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(world.hub.list().is_empty());
}
