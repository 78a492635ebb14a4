//! A folder on disk, asked for everything that must and must not come out of it.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::symlink};

use http::header::{IF_NONE_MATCH, RANGE};
use http_body_util::BodyExt;
use nix::unistd::mkfifo;

use super::*;
use crate::refusal::{Form, Reader};

struct Release {
    _folder: tempfile::TempDir,
    site: Site,
}

fn release() -> Release {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("static");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("index.html"), "<h1>hello</h1>").unwrap();
    fs::write(root.join("sub/app.js"), "let a;").unwrap();
    fs::write(root.join("a b.txt"), "space").unwrap();
    fs::write(root.join("big.bin"), vec![7; 300_000]).unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("/etc/hostname", root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
    Release { site: Site::new(root), _folder: folder }
}

async fn ask(release: &Release, method: Method, path: &str, headers: &HeaderMap) -> Response<ResponseBody> {
    let answered = answer(release.site.folder().unwrap().unwrap(), &method, path, headers).await;
    let id = HeaderValue::from_static("id");
    let reader = Reader { form: Form::Text, head_only: method == Method::HEAD, h2: true, id };
    answered.unwrap_or_else(|refusal| refusal.into_response(&reader))
}

async fn get(release: &Release, path: &str) -> (u16, Bytes) {
    let response = ask(release, Method::GET, path, &HeaderMap::new()).await;
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn files_are_served_by_name() {
    let release = release();
    assert_eq!(get(&release, "/").await, (200, Bytes::from_static(b"<h1>hello</h1>")));
    assert_eq!(get(&release, "/index.html").await.0, 200);
    assert_eq!(get(&release, "/sub/app.js").await.1, "let a;");
    assert_eq!(get(&release, "/sub//app.js").await.1, "let a;");
    assert_eq!(get(&release, "/a%20b.txt").await.1, "space");
    assert_eq!(get(&release, "/big.bin").await.1, vec![7; 300_000]);
}

#[tokio::test]
async fn nothing_outside_the_folder_is_served() {
    let release = release();
    for path in [
        "/missing",
        "/sub",
        "/sub/",
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/%252e%252e/secret",
        "/..\\secret",
        "/out",
        "/absolute",
        "/up/secret",
        "/up/static/index.html",
        "/index.html%00",
        "/index.html%00.txt",
        "/\0",
        "/.",
        "/..",
        "//",
        "/%ff",
        "/fifo",
        "/index.html/",
        "/index.html/x",
    ] {
        let (status, body) = get(&release, path).await;
        assert_eq!((status, body.as_ref()), (404, &b"Not Found\n"[..]), "{path}");
    }
}

#[tokio::test]
async fn the_way_without_openat2_is_as_strict() {
    let release = release();
    let folder = release.site.folder().unwrap().unwrap();
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let opens = |name: &str| open_by_name(&folder, Path::new(name), flags).is_ok();
    assert!(opens("index.html") && opens("sub/app.js"));
    assert!(!opens("out") && !opens("absolute") && !opens("up/secret") && !opens("missing"));
}

#[tokio::test]
async fn answers_say_kind_version_and_who_may_use_them() {
    let release = release();
    let response = ask(&release, Method::GET, "/", &HeaderMap::new()).await;
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["content-length"], "14");
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["access-control-allow-methods"], "GET");
    assert_eq!(headers["access-control-max-age"], "86400");
    assert!(headers.contains_key("last-modified"));
    let mut known = HeaderMap::new();
    known.insert(IF_NONE_MATCH, headers["etag"].clone());
    let again = ask(&release, Method::GET, "/", &known).await;
    assert_eq!(again.status(), 304);
    assert!(!again.headers().contains_key("content-length"));
}

#[tokio::test]
async fn parts_of_small_and_large_files_are_exact() {
    let release = release();
    for (path, range, status, length, told) in [
        ("/index.html", "bytes=1-2", 206, 2, Some("bytes 1-2/14")),
        ("/big.bin", "bytes=100-200099", 206, 200_000, Some("bytes 100-200099/300000")),
        ("/big.bin", "bytes=300000-", 416, 0, Some("bytes */300000")),
        ("/big.bin", "bytes=0-1,3-4", 200, 300_000, None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        let response = ask(&release, Method::GET, path, &headers).await;
        assert_eq!(response.status(), status, "{path} {range}");
        assert_eq!(response.headers().get("content-range").map(|told| told.to_str().unwrap()), told);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), length);
    }
}

#[tokio::test]
async fn only_get_and_head_are_for_files() {
    let release = release();
    let head = ask(&release, Method::HEAD, "/big.bin", &HeaderMap::new()).await;
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "300000"));
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
    let post = ask(&release, Method::POST, "/", &HeaderMap::new()).await;
    assert_eq!((post.status().as_u16(), post.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    assert_eq!(ask(&release, Method::OPTIONS, "/", &HeaderMap::new()).await.status(), 204);
}

#[test]
fn a_release_without_a_folder_has_no_site() {
    let none = |path: &Path| Site::new(path.to_path_buf()).folder().unwrap().is_none();
    assert!(none(Path::new("/nonexistent/static")));
    assert!(none(Path::new("src")), "a path that depends on where the proxy runs");
    let folder = tempfile::tempdir().unwrap();
    symlink("/", folder.path().join("static")).unwrap();
    assert!(none(&folder.path().join("static")), "a link could lead anywhere");
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(none(&folder.path().join("file")));
}

/// Status, coding and content of what a client gets that says this of itself.
async fn asks(release: &Release, path: &str, says: &[(HeaderName, &'static str)]) -> (u16, String, Bytes) {
    let headers = says.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
    let response = ask(release, Method::GET, path, &headers).await;
    let coding = response.headers().get(CONTENT_ENCODING).map_or("", |coding| coding.to_str().unwrap());
    let (status, coding) = (response.status().as_u16(), coding.to_owned());
    (status, coding, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_file_that_lies_there_compressed_is_sent_so_to_who_takes_it() {
    let release = release();
    let beside = |name: &str, content: &str| {
        let root = release._folder.path().join("static");
        fs::write(root.join(name), content).unwrap();
    };
    beside("sub/app.js.gz", "gzipped");
    beside("sub/app.js.br", "brotli");
    beside("sub/app.js.zst", "zstandard");
    beside("lonely.js.gz", "nothing to be compressed");
    let plain = ask(&release, Method::GET, "/sub/app.js", &HeaderMap::new()).await;
    assert_eq!(plain.headers()[VARY], "accept-encoding");
    for (accept, coding, content) in [
        ("gzip, br", "br", "brotli"),
        ("gzip", "gzip", "gzipped"),
        ("zstd", "zstd", "zstandard"),
        ("x", "", "let a;"),
    ] {
        let says = [(http::header::ACCEPT_ENCODING, accept)];
        let got = asks(&release, "/sub/app.js", &says).await;
        assert_eq!(got, (200, coding.to_owned(), content.as_bytes().into()), "{accept}");
    }
    let part = [(http::header::ACCEPT_ENCODING, "br"), (RANGE, "bytes=0-2")];
    assert_eq!(asks(&release, "/sub/app.js", &part).await, (206, String::new(), "let".into()));
    assert_eq!(asks(&release, "/lonely.js", &[(http::header::ACCEPT_ENCODING, "gzip")]).await.0, 404);
    let accepts = HeaderMap::from_iter([(http::header::ACCEPT_ENCODING, HeaderValue::from_static("br"))]);
    let compressed = ask(&release, Method::GET, "/sub/app.js", &accepts).await;
    assert_eq!(compressed.headers()["content-type"], "text/javascript; charset=utf-8");
    assert_ne!(compressed.headers()[ETAG], plain.headers()[ETAG]);
}

#[tokio::test]
async fn pages_that_are_not_there_have_a_page_of_their_own() {
    let release = release();
    let root = release._folder.path().join("static");
    let browser = [(ACCEPT, "text/html,application/xhtml+xml")];
    assert_eq!(asks(&release, "/shop/7", &browser).await.0, 404);
    fs::write(root.join("404.html"), "<h1>gone</h1>").unwrap();
    assert_eq!(asks(&release, "/shop/7", &browser).await, (404, String::new(), "<h1>gone</h1>".into()));
    fs::write(root.join("200.html"), "<h1>app</h1>").unwrap();
    for path in ["/shop/7", "/shop/", "/sub"] {
        assert_eq!(
            asks(&release, path, &browser).await,
            (200, String::new(), "<h1>app</h1>".into()),
            "{path}"
        );
    }
    assert_eq!(asks(&release, "/shop/7.js", &[]).await.0, 404, "what is no page is told that it isn't there");
    assert_eq!(asks(&release, "/", &browser).await.2, "<h1>hello</h1>");
}
