//! Chunks and forms.

use super::*;

#[tokio::test]
async fn a_form_that_is_none_is_refused_and_leaves_nothing() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = format!("/debug/application/{id}/upload");
    assert_eq!(world.call("POST", &path, "x").await, refused(BAD, "Failed to parse upload form"));
    let cut = world.request("POST", &path).header("content-type", "multipart/form-data; boundary=XX");
    let cut =
        cut.body(Body::from("--XX\r\nContent-Disposition: form-data; name=\"chunk\"\r\n\r\nhalf")).unwrap();
    assert_eq!(read(world.send(cut).await).await, refused(BAD, "Failed to parse upload form"));
    assert_eq!(names(&world.hub.folders.tmp()), Vec::<String>::new());
}

#[tokio::test]
async fn a_form_with_wrong_fields_is_refused_in_the_contracts_words() {
    let world = World::new(Config { max_chunks: 10, ..Config::default() });
    let id = world.create("a", "a").await;
    let hash = md5(b"x");
    let missing = "Missing required parameters: chunkIndex, totalChunks, fileHash";
    for (index, total, hash, text) in [
        ("", "1", &*hash, missing),
        ("0", "", &hash, missing),
        ("0", "1", "", missing),
        ("a", "1", &hash, "Invalid chunk index"),
        ("-5", "1", &hash, "Invalid chunk index"),
        ("7", "1", &hash, "Invalid chunk index"),
        ("0", "b", &hash, "Invalid total chunks"),
        ("0", "0", &hash, "Invalid total chunks"),
        ("0", "-1", &hash, "Invalid total chunks"),
        ("0", "11", &hash, "Invalid total chunks"),
        ("0", "99999999999999999999", &hash, "Invalid total chunks"),
        ("0", "1", "../../x", "Invalid file hash"),
    ] {
        let fields = [("chunkIndex", index), ("totalChunks", total), ("fileHash", hash), ("chunk", "x")];
        let fields = fields.map(|(name, value)| (name, value.as_bytes()));
        assert_eq!(world.form(&id, &fields).await, refused(BAD, text), "{index} {total} {hash}");
    }
    assert_eq!(world.form(&id, &[]).await, refused(BAD, missing));
    let chunkless: [(&str, &[u8]); 3] =
        [("chunkIndex", b"0"), ("totalChunks", b"1"), ("fileHash", hash.as_bytes())];
    assert_eq!(world.form(&id, &chunkless).await, refused(BAD, "Failed to get chunk file"));
    assert_eq!(world.form(&id, &chunkless[1..]).await, refused(BAD, missing));
}

#[tokio::test]
async fn an_upload_over_its_limits_is_refused_and_leaves_nothing() {
    let world = World::new(Config { max_chunk_bytes: 1000, max_package_bytes: 1500, ..Config::default() });
    let id = world.create("a", "a").await;
    let over = |limit: u32| {
        refused(StatusCode::PAYLOAD_TOO_LARGE, &format!("Upload is too large: the limit is {limit} bytes"))
    };
    assert_eq!(world.chunk(&id, (0, 1), &md5(b""), &[0; 1001]).await, over(1000));
    assert_eq!(world.chunk(&id, (0, 1), &md5(b""), &[0; 70_000]).await, over(1000));
    assert_eq!(world.chunk(&id, (0, 1), &md5(b""), &[0; 200_000]).await, over(1000));
    assert_eq!(world.chunk(&id, (0, 2), &md5(b""), &[0; 1000]).await.0, OK);
    assert_eq!(world.chunk(&id, (1, 2), &md5(b""), &[0; 1000]).await, over(1500));
    assert_eq!(names(&world.hub.folders.tmp()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_falls_silent_is_given_up() {
    let world = world();
    let id = world.create("a", "a").await;
    let begun = "--XX\r\nContent-Disposition: form-data; name=\"chunk\"\r\n\r\nhalf";
    let silent = tokio_stream::once(Ok::<_, std::io::Error>(begun)).chain(tokio_stream::pending());
    let request = world.request("POST", &format!("/debug/application/{id}/upload"));
    let request =
        request.header("content-type", "multipart/form-data; boundary=XX").body(Body::from_stream(silent));
    let stalled = refused(StatusCode::REQUEST_TIMEOUT, "Upload made no progress for 60000 ms");
    assert_eq!(read(world.send(request.unwrap()).await).await, stalled);
    assert_eq!(names(&world.hub.folders.tmp()), Vec::<String>::new());
}

#[tokio::test]
async fn chunks_come_in_any_order_with_their_fields_in_any_order() {
    let world = world();
    let id = world.create("a", "a").await;
    let zip = package("v1");
    let hash = md5(&zip);
    let parts: Vec<&[u8]> = zip.chunks(zip.len().div_ceil(3)).collect();
    let status =
        async || json(&world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1);
    let fields: [(&str, &[u8]); 4] =
        [("chunk", parts[2]), ("fileHash", hash.as_bytes()), ("totalChunks", b"3"), ("chunkIndex", b"2")];
    let received = "{\"message\":\"Chunk received successfully\",\"status\":\"received\"}\n".to_owned();
    assert_eq!(world.form(&id, &fields).await, (OK, received.clone()));
    assert_eq!(world.chunk(&id, (0, 3), &hash, b"wrong, sent again below").await, (OK, received.clone()));
    assert_eq!(
        world.chunk("a", (0, 3), &hash.to_uppercase(), parts[0]).await,
        (OK, received),
        "by appId too"
    );
    let half = status().await;
    assert_eq!(
        (half["totalChunks"].as_u64(), half["receivedChunks"].as_u64(), half["completed"].as_bool()),
        (Some(3), Some(2), Some(false))
    );
    let completed =
        "{\"message\":\"Package upload completed successfully\",\"status\":\"completed\"}\n".to_owned();
    assert_eq!(world.chunk(&id, (1, 3), &hash, parts[1]).await, (OK, completed.clone()));
    assert_eq!(world.chunk(&id, (1, 3), &hash, parts[1]).await, (OK, completed), "the same again is cheap");
    let whole = status().await;
    assert_eq!(
        (whole["progress"].as_f64(), whole["completed"].as_bool(), whole["applicationId"].as_str()),
        (Some(100.0), Some(true), Some(&*id))
    );
    assert_eq!(whole["fileHash"], hash);
    assert_eq!(std::fs::read(world.hub.folders.package(&id)).unwrap(), zip);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_may_come_at_once_and_one_of_the_last_two_completes_the_package() {
    let world = world();
    let (zip, words) = (package("v1"), |answer: (StatusCode, String)| json(&answer.1)["status"].clone());
    let (hash, parts): (_, Vec<&[u8]>) = (md5(&zip), zip.chunks(zip.len().div_ceil(3)).collect());
    for round in 0..20 {
        let id = world.create(&format!("a{round}"), &format!("a{round}")).await;
        let chunk = |index: usize| world.chunk(&id, (index as i64, 3), &hash, parts[index]);
        assert_eq!(words(chunk(0).await), "received");
        let (one, other) = tokio::join!(chunk(1), chunk(2));
        let mut said = [words(one), words(other)];
        said.sort_by_key(ToString::to_string);
        assert_eq!(said, ["completed", "received"]);
        assert_eq!(std::fs::read(world.hub.folders.package(&id)).unwrap(), zip);

        let (first, second, third) = tokio::join!(chunk(2), chunk(2), chunk(2));
        assert!([first, second, third].into_iter().all(|answer| words(answer) == "completed"), "a repeat");
        let other = package("v2");
        let (hash, parts): (_, Vec<&[u8]>) = (md5(&other), other.chunks(other.len().div_ceil(2)).collect());
        assert_eq!(words(world.chunk(&id, (0, 2), &hash, parts[0]).await), "received");
        let last = || world.chunk(&id, (1, 2), &hash, parts[1]);
        let (one, same) = tokio::join!(last(), last());
        assert_eq!((words(one), words(same)), ("completed".into(), "completed".into()), "the same one twice");
        assert_eq!(std::fs::read(world.hub.folders.package(&id)).unwrap(), other);
    }
}

#[tokio::test]
async fn a_wrong_digest_resets_the_session_and_the_right_one_goes_through() {
    let world = world();
    let id = world.create("a", "a").await;
    let zip = package("v1");
    let failed = refused(StatusCode::INTERNAL_SERVER_ERROR, "Failed to process chunk");
    assert_eq!(world.chunk(&id, (0, 1), &md5(b"other"), &zip).await, failed);
    let status = json(&world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await.1);
    assert_eq!((status["completed"].as_bool(), status["receivedChunks"].as_u64()), (Some(false), Some(0)));
    assert!(status["error"].as_str().unwrap().contains("MD5"));
    let (code, text) = world.call("POST", &format!("/debug/application/{id}/install"), "").await;
    assert_eq!((code, text.as_str()), (BAD, "No package uploaded for this application\n"));
    assert_eq!(world.push(&id, &zip).await.0, OK);
    assert_eq!(world.chunk(&id, (0, 2), &md5(b"n"), b"n").await.0, OK, "a new session");
    assert_eq!(world.chunk(&id, (1, 3), &md5(b"n"), b"n").await, failed, "another total");
    assert_eq!(world.chunk(&id, (1, 2), &md5(b"m"), b"n").await, failed, "another file");
    assert_eq!(world.push(&id, &package("v2")).await.0, OK, "chunk 0 of another file starts over");
}
