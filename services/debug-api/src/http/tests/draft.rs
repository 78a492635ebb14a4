//! Uploads by the IETF's draft.

use super::*;
use crate::testing::{Ask, digest};

const MEDIA: (&str, &str) = ("content-type", "application/partial-upload");
const VERSION: (&str, &str) = ("upload-draft-interop-version", "8");
const LAST: (&str, &str) = ("upload-complete", "?1");
const MORE: (&str, &str) = ("upload-complete", "?0");

async fn draft(world: &World, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Ask {
    world.ask(method, path, &[&[VERSION], fields].concat(), body.to_vec()).await
}

async fn begun(world: &World, id: &str, fields: &[(&str, &str)], body: &[u8]) -> String {
    let fields = [&[MORE], fields].concat();
    let ask = draft(world, "POST", &format!("/debug/application/{id}/files"), &fields, body).await;
    assert_eq!((ask.status, ask.field("upload-complete")), (StatusCode::CREATED, "?0"), "{}", ask.text);
    assert_eq!(ask.field("upload-limit"), "max-size=536870912, max-age=3600");
    ask.field("location").to_owned()
}

async fn patch(world: &World, path: &str, offset: usize, end: (&str, &str), body: &[u8]) -> Ask {
    draft(world, "PATCH", path, &[MEDIA, end, ("upload-offset", &offset.to_string())], body).await
}

#[tokio::test]
async fn a_package_at_once_is_the_package() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let ask = draft(&world, "POST", &format!("/debug/application/{id}/files"), &[LAST], &zip).await;
    assert_eq!((ask.status, ask.field("upload-complete")), (OK, "?1"));
    assert_eq!(json(&ask.text)["status"], "completed");
    assert_eq!(world.install(&id).await.0, OK);
    world.until(&id, "running").await;
}

#[tokio::test]
async fn a_package_in_parts_is_complete_when_its_client_says_so() {
    let world = world();
    let (id, zip) = (world.create("a", "a").await, package("v1"));
    let digest = format!("sha-256=:{}:", data_encoding::BASE64.encode(&digest(&zip)));
    let path = begun(&world, &id, &[("repr-digest", &digest)], &zip[..7]).await;
    let head = draft(&world, "HEAD", &path, &[], b"").await;
    assert_eq!((head.status, head.field("upload-offset")), (StatusCode::NO_CONTENT, "7"));
    assert_eq!((head.field("upload-complete"), head.field("upload-length")), ("?0", ""));
    assert_eq!(head.field("cache-control"), "no-store");
    let ask = patch(&world, &path, 7, MORE, &zip[7..]).await;
    assert_eq!((ask.status, ask.field("upload-complete")), (StatusCode::NO_CONTENT, "?0"));
    assert_eq!(world.install(&id).await, refused(BAD, "No package uploaded for this application"));
    let bare = world.ask("HEAD", &path, &[], "").await;
    assert_eq!((bare.status, bare.field("upload-offset")), (StatusCode::NO_CONTENT, &*zip.len().to_string()));
    let ask = patch(&world, &path, zip.len(), LAST, b"").await;
    assert_eq!((ask.status, ask.field("upload-complete")), (OK, "?1"), "{}", ask.text);
    let head = draft(&world, "HEAD", &path, &[], b"").await;
    assert_eq!((head.field("upload-complete"), head.field("upload-length")), ("?1", &*zip.len().to_string()));
    for end in [LAST, MORE] {
        assert_eq!(patch(&world, &path, zip.len(), end, b"").await.status, BAD, "it is complete");
    }
    assert_eq!(world.install(&id).await.0, OK);
}

#[tokio::test]
async fn lengths_that_contradict_each_other_are_refused() {
    let world = world();
    let id = world.create("a", "a").await;
    let place = format!("/debug/application/{id}/files");
    let length = |length| ("upload-length", length);
    assert_eq!(draft(&world, "POST", &place, &[LAST, length("4")], b"abc").await.status, BAD);
    assert_eq!(names(&world.hub.folders.transfers(&id)), Vec::<String>::new(), "nobody knows where it is");
    let path = begun(&world, &id, &[length("6")], b"abc").await;
    let fields = [MEDIA, MORE, ("upload-offset", "3"), length("7")];
    assert_eq!(draft(&world, "PATCH", &path, &fields, b"").await.status, BAD);
    assert_eq!(patch(&world, &path, 3, LAST, b"de").await.status, BAD, "one is missing");
    assert_eq!(patch(&world, &path, 3, LAST, b"defg").await.status, BAD, "one too many");
    assert_eq!(draft(&world, "HEAD", &path, &[], b"").await.field("upload-offset"), "3");
    let stream = || tokio_stream::iter(["de", "fg"].map(Ok::<_, std::io::Error>));
    let ask = world
        .ask("PATCH", &path, &[VERSION, MEDIA, MORE, ("upload-offset", "3")], Body::from_stream(stream()))
        .await;
    assert_eq!(ask.status, BAD, "its length was not said before");
    assert_eq!(
        draft(&world, "HEAD", &path, &[], b"").await.status,
        StatusCode::NOT_FOUND,
        "it is no longer good"
    );
}

#[tokio::test]
async fn what_is_not_the_draft_is_told_so() {
    let world = world();
    let id = world.create("a", "a").await;
    let place = format!("/debug/application/{id}/files");
    let path = begun(&world, &id, &[], b"abc").await;
    let other = [("upload-draft-interop-version", "6"), MORE];
    assert_eq!(world.ask("POST", &place, &other, "").await.status, StatusCode::PRECONDITION_FAILED);
    let none = draft(&world, "POST", &place, &[("upload-complete", "yes")], b"").await;
    assert_eq!((none.status, none.text), refused(BAD, "Invalid upload-complete"));
    assert_eq!(draft(&world, "POST", &place, &[], b"").await.text, "Missing Upload-Complete\n");
    let ask = draft(&world, "PATCH", &path, &[MORE, ("upload-offset", "3")], b"").await;
    assert_eq!(ask.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for fields in
        [&[MEDIA, MORE][..], &[MEDIA, ("upload-offset", "3")], &[MEDIA, MORE, ("upload-offset", "-3")]]
    {
        assert_eq!(draft(&world, "PATCH", &path, fields, b"").await.status, BAD, "{fields:?}");
    }
    let ask = patch(&world, &path, 2, MORE, b"x").await;
    assert_eq!((ask.status, ask.field("upload-offset")), (StatusCode::CONFLICT, "3"));
    assert_eq!(draft(&world, "PUT", &path, &[], b"").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn digests_of_parts_and_of_the_whole_are_held_to() {
    let world = world();
    let id = world.create("a", "a").await;
    let wrong = format!("sha-256=:{}:", data_encoding::BASE64.encode(&[7; 32]));
    let path = begun(&world, &id, &[("repr-digest", &wrong)], b"abc").await;
    let fields = [MEDIA, MORE, ("upload-offset", "3"), ("content-digest", &wrong)];
    assert_eq!(draft(&world, "PATCH", &path, &fields, b"def").await.status.as_u16(), 460);
    assert_eq!(draft(&world, "HEAD", &path, &[], b"").await.field("upload-offset"), "3");
    let ask = patch(&world, &path, 3, LAST, b"def").await;
    assert_eq!((ask.status, ask.field("upload-complete")), (StatusCode::UNPROCESSABLE_ENTITY, "?1"));
    assert_eq!(world.install(&id).await, refused(BAD, "No package uploaded for this application"));
}

#[tokio::test]
async fn a_cancelled_upload_is_gone_and_one_of_tus_can_be_gone_on_with() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = begun(&world, &id, &[], b"abc").await;
    let fields = [
        ("tus-resumable", "1.0.0"),
        ("upload-offset", "3"),
        ("content-type", "application/offset+octet-stream"),
    ];
    assert_eq!(world.ask("PATCH", &path, &fields, "def").await.field("upload-offset"), "6");
    assert_eq!(draft(&world, "DELETE", &path, &[], b"").await.status, StatusCode::NO_CONTENT);
    assert_eq!(draft(&world, "HEAD", &path, &[], b"").await.status, StatusCode::NOT_FOUND);
    assert_eq!(names(&world.hub.folders.transfers(&id)), Vec::<String>::new());
}
