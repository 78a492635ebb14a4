//! Uploads by tus 1.0.

use http::HeaderMap;
use sha1::{Digest, Sha1};

use super::*;
use crate::testing::{Ask, sha256};

const MEDIA: (&str, &str) = ("content-type", "application/offset+octet-stream");

/// A request of tus: one with a body brings bytes of the file.
async fn tus(world: &World, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Ask {
    let fields = [&[("tus-resumable", "1.0.0")], fields].concat();
    world.ask(method, path, &fields, body.to_vec()).await
}

async fn begun(world: &World, id: &str, fields: &[(&str, &str)]) -> String {
    let ask = tus(world, "POST", &format!("/debug/application/{id}/files"), fields, b"").await;
    assert_eq!(ask.status, StatusCode::CREATED, "{}", ask.text);
    ask.field("location").to_owned()
}

async fn patch(world: &World, path: &str, offset: usize, body: &[u8]) -> Ask {
    tus(world, "PATCH", path, &[MEDIA, ("upload-offset", &offset.to_string())], body).await
}

async fn offset(world: &World, path: &str) -> String {
    tus(world, "HEAD", path, &[], b"").await.field("upload-offset").to_owned()
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

#[tokio::test]
async fn the_place_says_what_it_can() {
    let world = world();
    let id = world.create("a", "a").await;
    let ask = world.ask("OPTIONS", &format!("/debug/application/{id}/files"), &[], "").await;
    assert_eq!((ask.status, ask.field("tus-version")), (StatusCode::NO_CONTENT, "1.0.0"));
    assert_eq!(ask.field("tus-max-size"), "536870912");
    assert_eq!(ask.field("tus-checksum-algorithm"), "sha1,md5,sha256");
    for extension in ["creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration"] {
        assert!(ask.field("tus-extension").split(',').any(|one| one == extension), "{extension}");
    }
    assert_eq!(ask.field("accept-patch"), "application/partial-upload");
}

#[tokio::test]
async fn a_package_in_parts_is_the_package_and_installs() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let metadata = format!("filename YS56aXA=,sha256 {}", base64(sha256(&zip).as_bytes()));
    let length = zip.len().to_string();
    let path = begun(&world, &id, &[("upload-length", &length), ("upload-metadata", &metadata)]).await;
    let (first, rest) = zip.split_at(zip.len() / 3);
    let ask = patch(&world, &path, 0, first).await;
    assert_eq!((ask.status, ask.field("upload-offset")), (StatusCode::NO_CONTENT, &*first.len().to_string()));
    assert!(ask.field("upload-expires").ends_with(" GMT"), "{:?}", ask.headers);
    let head = tus(&world, "HEAD", &path, &[], b"").await;
    assert_eq!((head.status, head.field("upload-length")), (OK, &*length));
    assert_eq!((head.field("cache-control"), head.field("upload-metadata")), ("no-store", &*metadata));
    assert_eq!(head.field("tus-resumable"), "1.0.0");
    assert_eq!(world.install(&id).await, refused(BAD, "No package uploaded for this application"));
    let ask = patch(&world, &path, first.len(), rest).await;
    assert_eq!((ask.status, ask.field("upload-expires")), (StatusCode::NO_CONTENT, ""));
    assert_eq!(std::fs::read(world.hub.folders.package(&id)).unwrap(), zip);
    assert_eq!(offset(&world, &path).await, length, "it is known on");
    let status = json(&world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1);
    assert_eq!((status["completed"].as_bool(), &status["fileSha256"]), (Some(true), &sha256(&zip).into()));
    assert_eq!(world.install(&id).await.0, OK);
    world.until(&id, "running").await;
}

#[tokio::test]
async fn an_upload_may_bring_its_bytes_at_once_and_say_its_length_later() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let place = format!("/debug/application/{id}/files");
    let length = zip.len().to_string();
    let whole = tus(&world, "POST", &place, &[MEDIA, ("upload-length", &length)], &zip).await;
    assert_eq!((whole.status, whole.field("upload-offset")), (StatusCode::CREATED, &*length));
    assert_eq!(world.install(&id).await.0, OK);

    let zip = package("v2, longer");
    let path = begun(&world, &id, &[("upload-defer-length", "1")]).await;
    assert_eq!(patch(&world, &path, 0, &zip[..10]).await.status, StatusCode::NO_CONTENT);
    let head = tus(&world, "HEAD", &path, &[], b"").await;
    assert_eq!((head.field("upload-defer-length"), head.field("upload-length")), ("1", ""));
    let later = async |length: usize| {
        let fields = [MEDIA, ("upload-offset", "10"), ("upload-length", &length.to_string())];
        tus(&world, "PATCH", &path, &fields, b"").await.status
    };
    assert_eq!(later(9).await, BAD, "shorter than it is");
    assert_eq!(later(zip.len()).await, StatusCode::NO_CONTENT);
    assert_eq!(later(zip.len() + 1).await, BAD, "said once");
    assert_eq!(patch(&world, &path, 10, &zip[10..]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.install(&id).await.0, OK);
    assert_eq!(
        begun(&world, &id, &[("upload-length", "0")]).await.len(),
        path.len(),
        "nothing is a file, too"
    );
}

#[tokio::test]
async fn what_is_not_tus_1_0_is_told_so() {
    let world = world();
    let id = world.create("a", "a").await;
    let place = format!("/debug/application/{id}/files");
    let path = begun(&world, &id, &[("upload-length", "3")]).await;
    for fields in [&[][..], &[("tus-resumable", "0.2.2")], &[("tus-resumable", "1.0.0, 1.0.0")]] {
        let ask = world.ask("POST", &place, &[fields, &[("upload-length", "3")]].concat(), "").await;
        assert_eq!((ask.status, ask.field("tus-version")), (StatusCode::PRECONDITION_FAILED, "1.0.0"));
        let ask =
            world.ask("PATCH", &path, &[fields, &[MEDIA, ("upload-offset", "0")]].concat(), "abc").await;
        assert_eq!(ask.status, StatusCode::PRECONDITION_FAILED, "{fields:?}");
    }
    for (fields, text) in [
        (&[][..], "Missing Upload-Length or Upload-Defer-Length"),
        (&[("upload-length", "-1")], "Invalid upload-length"),
        (&[("upload-length", "1"), ("upload-length", "1")], "Invalid upload-length"),
        (&[("upload-length", "1"), ("upload-defer-length", "1")], "Invalid Upload-Defer-Length"),
        (&[("upload-defer-length", "2")], "Invalid Upload-Defer-Length"),
        (&[("upload-length", "1"), ("upload-metadata", "a %")], "Invalid upload-metadata"),
        (&[("upload-length", "1"), ("repr-digest", "sha-256=:YQ==:")], "Invalid repr-digest"),
    ] {
        let ask = tus(&world, "POST", &place, fields, b"").await;
        assert_eq!((ask.status, ask.text), refused(BAD, text));
    }
    let ask = tus(&world, "PATCH", &path, &[("upload-offset", "0")], b"abc").await;
    assert_eq!(ask.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(tus(&world, "PATCH", &path, &[MEDIA], b"abc").await.status, BAD, "no offset");
    assert_eq!(tus(&world, "PUT", &path, &[], b"").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        tus(&world, "POST", &place, &[("upload-length", "3")], b"abc").await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    for strange in [format!("{place}/none"), format!("{place}/..%2f..%2fx"), path.replace(&id, "none")] {
        let ask = patch(&world, &strange, 0, b"abc").await;
        assert_eq!((ask.status, ask.field("upload-offset")), (StatusCode::NOT_FOUND, ""), "{strange}");
    }
    assert_eq!(offset(&world, &path).await, "0");
}

#[tokio::test]
async fn a_part_at_the_wrong_place_or_over_the_end_changes_nothing() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, &[("upload-length", "6")]).await;
    assert_eq!(patch(&world, &path, 0, b"abc").await.status, StatusCode::NO_CONTENT);
    for wrong in [0, 2, 4] {
        let ask = patch(&world, &path, wrong, b"x").await;
        assert_eq!((ask.status, ask.field("upload-offset")), (StatusCode::CONFLICT, "3"), "{wrong}");
    }
    let over = patch(&world, &path, 3, b"defg").await;
    assert_eq!(
        (over.status, over.text),
        refused(BAD, "Upload has more bytes than the 6 that were announced")
    );
    assert_eq!(offset(&world, &path).await, "3");
    assert_eq!(patch(&world, &path, 3, b"").await.field("upload-offset"), "3", "nothing is a part, too");
}

#[tokio::test]
async fn a_part_with_a_checksum_counts_only_if_it_is_right() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, &[("upload-length", "6")]).await;
    let with = async |sum: &str, offset: &str, body: &[u8]| {
        tus(&world, "PATCH", &path, &[MEDIA, ("upload-offset", offset), ("upload-checksum", sum)], body).await
    };
    let right = format!("sha1 {}", base64(&Sha1::digest(b"abc")));
    let ask = with(&right, "0", b"abd").await;
    assert_eq!((ask.status.as_u16(), ask.field("upload-offset")), (460, ""));
    assert_eq!(offset(&world, &path).await, "0");
    assert_eq!(with(&right, "0", b"abc").await.field("upload-offset"), "3");
    assert_eq!(with("crc32 AAAAAA==", "3", b"def").await.status, BAD);
    assert_eq!(with("sha1 AAAA", "3", b"def").await.status, BAD);
    assert_eq!(with(&format!("md5 {}", base64(&[0; 16])), "3", b"def").await.status.as_u16(), 460);
    assert_eq!(offset(&world, &path).await, "3");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_announced_is_refused_and_is_no_package() {
    let world = world();
    let id = world.create("a", "a").await;
    assert_eq!(world.push(&id, &package("v1")).await.0, OK);
    let digest = format!("sha-256=:{}:", base64(&[7; 32]));
    let path = begun(&world, &id, &[("upload-length", "3"), ("repr-digest", &digest)]).await;
    let ask = patch(&world, &path, 0, b"abc").await;
    assert_eq!(ask.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(ask.text.contains(&sha256(b"abc")) && ask.text.contains(&"07".repeat(32)), "{}", ask.text);
    assert_eq!(tus(&world, "HEAD", &path, &[], b"").await.status, StatusCode::NOT_FOUND);
    assert_eq!(names(&world.hub.folders.transfers(&id)), Vec::<String>::new());
    assert_eq!(world.install(&id).await, refused(BAD, "No package uploaded for this application"));
    let status = json(&world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1);
    assert!(status["error"].as_str().unwrap().contains("SHA-256"), "{status}");
    let metadata = format!("sha256 {}", base64(sha256(b"abc").as_bytes()));
    let fields = [("upload-length", "3"), ("repr-digest", &*digest), ("upload-metadata", &*metadata)];
    let ask = tus(&world, "POST", &format!("/debug/application/{id}/files"), &fields, b"").await;
    assert_eq!(ask.status, BAD, "two digests of one file");
}

#[tokio::test]
async fn a_terminated_upload_is_gone_and_its_package_stays() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let path = begun(&world, &id, &[("upload-length", "6")]).await;
    assert_eq!(patch(&world, &path, 0, b"abc").await.status, StatusCode::NO_CONTENT);
    assert_eq!(tus(&world, "DELETE", &path, &[], b"").await.status, StatusCode::NO_CONTENT);
    for method in ["HEAD", "DELETE"] {
        assert_eq!(tus(&world, method, &path, &[], b"").await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(names(&world.hub.folders.transfers(&id)), Vec::<String>::new());
    let path = begun(&world, &id, &[("upload-length", &zip.len().to_string())]).await;
    assert_eq!(patch(&world, &path, 0, &zip).await.status, StatusCode::NO_CONTENT);
    let override_field = [("x-http-method-override", "DELETE")];
    assert_eq!(tus(&world, "POST", &path, &override_field, b"").await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.install(&id).await.0, OK);
}

#[tokio::test]
async fn every_answer_says_the_version_even_a_refusal() {
    let world = world();
    let id = world.create("a", "a").await;
    let said = |headers: &HeaderMap| headers.get_all("tus-resumable").iter().count();
    for method in ["HEAD", "PATCH", "DELETE", "PUT"] {
        let ask = tus(&world, method, &format!("/debug/application/{id}/files/none"), &[], b"").await;
        assert_eq!(said(&ask.headers), 1, "{method}");
    }
}

#[tokio::test]
async fn what_the_whole_is_may_be_said_with_the_last_part_and_only_once() {
    let world = world();
    let id = world.create("a", "a").await;
    let digest = |bytes: &[u8]| format!("sha-256=:{}:", base64(&sha2::Sha256::digest(bytes)));
    let part = async |path: &str, offset: &str, said: &[u8], bytes: &[u8]| {
        let fields = [MEDIA, ("upload-offset", offset), ("repr-digest", &digest(said))];
        tus(&world, "PATCH", path, &fields, bytes).await.status
    };
    let path = begun(&world, &id, &[("upload-length", "3")]).await;
    assert_eq!(part(&path, "0", b"abc", b"a").await, StatusCode::NO_CONTENT);
    assert_eq!(part(&path, "1", b"other", b"bc").await, BAD, "another than before");
    assert_eq!(offset(&world, &path).await, "1");
    assert_eq!(part(&path, "1", b"abc", b"bc").await, StatusCode::NO_CONTENT);
    let path = begun(&world, &id, &[("upload-length", "3")]).await;
    assert_eq!(patch(&world, &path, 0, b"ab").await.status, StatusCode::NO_CONTENT);
    assert_eq!(part(&path, "2", b"abd", b"c").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(tus(&world, "HEAD", &path, &[], b"").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn uploads_that_are_not_finished_are_told_with_what_their_clients_said_of_them() {
    let world = world();
    let id = world.create("a", "a").await;
    let place = format!("/debug/application/{id}/files");
    let told = async || json(&world.call("GET", &place, "").await.1)["uploads"].clone();
    assert_eq!(told().await, serde_json::json!([]));
    let path = begun(&world, &id, &[("upload-length", "3"), ("upload-metadata", "glance YQ==")]).await;
    assert_eq!(told().await, serde_json::json!([{ "location": path, "metadata": "glance YQ==" }]));
    assert_eq!(patch(&world, &path, 0, b"abc").await.status, StatusCode::NO_CONTENT);
    assert_eq!(told().await, serde_json::json!([]), "it is the package now");
}
