//! An upload that is broken off goes on where it was, whoever broke it off and at whichever byte: its client, the proxy, debug-api.
//! Both protocols are spoken by clients of our own, written from what the specifications say.

use std::{fs, path::PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use nexushub_e2e::{
    Answer, FORGIVING, Options, Platform, package::sha256, raw::noise, rounds, soon, upload::Developer,
    workshop,
};

use crate::push::{package, runs_at};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Tus,
    Draft,
}

type Fields = Vec<(&'static str, String)>;

fn lent<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

impl Speech {
    /// The fields of every request.
    fn hello(self) -> Fields {
        match self {
            Self::Tus => vec![("tus-resumable", "1.0.0".into())],
            Self::Draft => vec![("upload-draft-interop-version", "8".into())],
        }
    }

    /// Of one that begins an upload of so many bytes with this digest.
    fn beginning(self, length: usize, digest: &[u8]) -> Fields {
        let mut fields = self.hello();
        fields.push(("upload-length", length.to_string()));
        fields.extend(match self {
            Self::Tus => {
                let digest = BASE64.encode(HEXLOWER.encode(digest).as_bytes());
                vec![("upload-metadata", format!("filename YS56aXA=,sha256 {digest}"))]
            }
            Self::Draft => vec![
                ("upload-complete", "?0".into()),
                ("repr-digest", format!("sha-256=:{}:", BASE64.encode(digest))),
            ],
        });
        fields
    }

    /// Of one that brings all that is missing.
    fn rest(self, offset: usize) -> Fields {
        let mut fields = self.hello();
        fields.push(("upload-offset", offset.to_string()));
        fields.extend(match self {
            Self::Tus => vec![("content-type", "application/offset+octet-stream".into())],
            Self::Draft => {
                vec![("content-type", "application/partial-upload".into()), ("upload-complete", "?1".into())]
            }
        });
        fields
    }
}

/// A client's upload.
struct Upload<'a> {
    platform: &'a Platform,
    developer: Developer,
    speech: Speech,
    id: String,
    path: String,
    file: Vec<u8>,
}

impl<'a> Upload<'a> {
    async fn begin(platform: &'a Platform, speech: Speech, id: &str, file: Vec<u8>, digest: &[u8]) -> Self {
        let developer = platform.developer();
        let fields = speech.beginning(file.len(), digest);
        let place = format!("/debug/application/{id}/files");
        let begun = developer.ask("POST", &place, &lent(&fields), "").await.unwrap();
        assert_eq!(begun.status, 201, "{}", begun.text());
        let path = begun.header("location").to_owned();
        Self { platform, developer, speech, id: id.to_owned(), path, file }
    }

    async fn ask(&self, method: &str) -> Answer {
        let answer = self.developer.ask(method, &self.path, &lent(&self.speech.hello()), "").await;
        answer.unwrap_or_else(|failure| panic!("{method}: {failure:?}"))
    }

    /// Where it is to be gone on with.
    async fn offset(&self) -> usize {
        let answer = self.ask("HEAD").await;
        assert!(answer.status.is_success(), "{} {:?}", answer.status, answer.headers);
        answer.header("upload-offset").parse().unwrap()
    }

    /// Sends what is missing.
    async fn rest(&self) -> Answer {
        let offset = self.offset().await;
        let fields = self.speech.rest(offset);
        let rest = self.file[offset..].to_vec();
        self.developer.ask("PATCH", &self.path, &lent(&fields), rest).await.unwrap()
    }

    /// Announces all that is missing, and sends so many bytes of it. Whether the connection was lost meanwhile is all the same.
    async fn part(&self, offset: usize, bytes: usize) -> impl Sized {
        let fields = self.speech.rest(offset);
        let (end, left) = (self.file.len().min(offset + bytes), self.file.len() - offset);
        let part = (&self.file[offset..end], left);
        self.developer.begin(("PATCH", &self.path), &lent(&fields), part).await.ok()
    }

    fn folder(&self) -> PathBuf {
        self.platform.state().join("debug-api/uploads").join(&self.id).join("transfers")
    }

    /// Bytes on the disk.
    fn kept(&self) -> usize {
        let name = self.path.rsplit('/').next().unwrap();
        let file = fs::metadata(self.folder().join(format!("{name}.data")));
        file.map_or(0, |file| usize::try_from(file.len()).unwrap())
    }

    async fn until_kept(&self, least: usize) {
        let kept = async {
            // Once whole, it is the package, and no longer where it was gathered.
            let mut most = 0;
            while self.kept() >= most && most < least {
                most = self.kept().max(most);
                tokio::task::yield_now().await;
            }
        };
        soon("bytes on the disk", kept).await;
    }
}

/// A number below a bound, the same in every run.
fn pick(seed: u64, below: usize) -> usize {
    let bytes = noise(seed, 8);
    usize::try_from(u64::from_le_bytes(bytes.try_into().unwrap()) % below as u64).unwrap()
}

async fn installs_as(platform: &Platform, id: &str, host: &str, page: &str) {
    let developer = platform.developer();
    let installed = developer.post(id, "/install").await;
    assert_eq!(installed.status, 200, "{}", installed.text());
    runs_at(platform, host, None).await;
    assert_eq!(platform.https().get(host, "/page.txt").await.text(), page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_anywhere_goes_on_where_it_was() {
    let platform = Platform::start();
    for speech in [Speech::Tus, Speech::Draft] {
        let name = format!("{speech:?}").to_lowercase();
        let id = platform.developer().created(&name).await;
        let file = package(&name);
        let digest = sha256(&file);
        let upload = Upload::begin(&platform, speech, &id, file, &digest).await;
        let mut before = 0;
        for round in 0..rounds(12) as u64 {
            let offset = upload.offset().await;
            assert!(offset >= before, "{speech:?}: what was told is never taken back");
            before = offset;
            let most = [2, 70_000, 900_000][pick(round, 3)];
            drop(upload.part(offset, 1 + pick(round + 100, most)).await);
        }
        let offset = upload.offset().await;
        assert!(offset > 0 && offset < upload.file.len(), "{speech:?}: {offset}");
        assert!(upload.rest().await.status.is_success());
        assert_eq!(upload.offset().await, upload.file.len());
        let status = platform.developer().get(&id, "/upload/status").await.json();
        assert_eq!(status["fileSha256"], HEXLOWER.encode(&digest));
        installs_as(&platform, &id, &format!("{name}.debug"), &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_amid_the_bytes_loses_none_that_it_told_of() {
    let platform = Platform::start_with(&Options::with(FORGIVING));
    for speech in [Speech::Tus, Speech::Draft] {
        let name = format!("{speech:?}").to_lowercase();
        let id = platform.developer().created(&name).await;
        let file = package(&name);
        let digest = sha256(&file);
        let upload = Upload::begin(&platform, speech, &id, file, &digest).await;
        let kills = rounds(4);
        for (round, victim) in ["debug-api", "proxy"].into_iter().cycle().take(kills).enumerate() {
            let offset = upload.offset().await;
            let bytes = 1 + pick(round as u64, upload.file.len() / kills / 2); // some are left in the end
            let stream = upload.part(offset, bytes).await;
            upload.until_kept(offset + 1).await;
            platform.kill(victim).await;
            let told = upload.offset().await;
            assert!(told > offset, "{speech:?}: {victim}");
            assert_eq!(told, upload.kept(), "{speech:?}: {victim}");
            drop(stream);
        }
        assert!(upload.rest().await.status.is_success());
        installs_as(&platform, &id, &format!("{name}.debug"), &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_around_the_last_byte_has_the_package_or_goes_on() {
    let platform = Platform::start_with(&Options::with(FORGIVING));
    for speech in [Speech::Tus, Speech::Draft] {
        let name = format!("{speech:?}").to_lowercase();
        let id = platform.developer().created(&name).await;
        for round in 0..rounds(3) {
            let page = format!("{name} {round}");
            let file = package(&page);
            let digest = sha256(&file);
            let upload = Upload::begin(&platform, speech, &id, file, &digest).await;
            let stream = upload.part(0, upload.file.len()).await;
            upload.until_kept(upload.file.len() / 2).await;
            platform.kill("debug-api").await;
            let answer = upload.ask("HEAD").await;
            let whole = answer.header("upload-offset") == upload.file.len().to_string();
            let said = answer.header("upload-complete") == "?1" || (whole && speech == Speech::Tus);
            if !said {
                let rest = upload.rest().await;
                assert!(rest.status.is_success(), "{speech:?}: {} {}", rest.status, rest.text());
            }
            drop(stream);
            let status = platform.developer().get(&id, "/upload/status").await.json();
            assert_eq!(status["fileSha256"], HEXLOWER.encode(&digest), "{speech:?}");
        }
        let last = format!("{name} {}", rounds(3) - 1);
        installs_as(&platform, &id, &format!("{name}.debug"), &last).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_what_was_announced_is_refused_and_the_right_one_is_taken() {
    let platform = Platform::start();
    for speech in [Speech::Tus, Speech::Draft] {
        let name = format!("{speech:?}").to_lowercase();
        let id = platform.developer().created(&name).await;
        let file = package(&name);
        let digest = sha256(&file);
        let wrong = Upload::begin(&platform, speech, &id, file.clone(), &sha256(b"another")).await;
        let answer = wrong.rest().await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains(&HEXLOWER.encode(&digest)), "{}", answer.text());
        assert_eq!(wrong.ask("HEAD").await.status, 404);
        assert_eq!(platform.developer().post(&id, "/install").await.status, 400);
        let right = Upload::begin(&platform, speech, &id, file, &digest).await;
        assert!(right.rest().await.status.is_success());
        installs_as(&platform, &id, &format!("{name}.debug"), &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_ends_its_own_request_that_hangs() {
    let platform = Platform::start();
    for speech in [Speech::Tus, Speech::Draft] {
        let name = format!("{speech:?}").to_lowercase();
        let id = platform.developer().created(&name).await;
        let file = package(&name);
        let digest = sha256(&file);
        let upload = Upload::begin(&platform, speech, &id, file, &digest).await;
        let hangs = upload.part(0, 1000).await;
        upload.until_kept(1000).await;
        assert_eq!(upload.offset().await, 1000);
        assert!(upload.rest().await.status.is_success());
        drop(hangs);
        installs_as(&platform, &id, &format!("{name}.debug"), &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_upload_is_gone_with_all_that_came_of_it() {
    let platform = Platform::start();
    for speech in [Speech::Tus, Speech::Draft] {
        let id = platform.developer().created(&format!("{speech:?}").to_lowercase()).await;
        let upload = Upload::begin(&platform, speech, &id, vec![7; 1000], &sha256(b"")).await;
        drop(upload.part(0, 500).await);
        assert_eq!(upload.ask("DELETE").await.status, 204);
        assert_eq!(upload.ask("HEAD").await.status, 404);
        assert_eq!(fs::read_dir(upload.folder()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_goes_on_with_expires() {
    let platform =
        Platform::start_with(&Options::with("[debug-api]\ndriver = \"process\"\nupload_life_s = 1\n"));
    for speech in [Speech::Tus, Speech::Draft] {
        let id = platform.developer().created(&format!("{speech:?}").to_lowercase()).await;
        let upload = Upload::begin(&platform, speech, &id, vec![7; 1000], &sha256(b"")).await;
        let expired = async {
            while fs::read_dir(upload.folder()).unwrap().count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("the upload expires", expired).await;
        assert_eq!(upload.ask("HEAD").await.status, 404);
    }
}

/// Bytes that all uploads under way have on the disk.
fn all_kept(platform: &Platform) -> u64 {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let uploads = below(platform.state().join("debug-api/uploads"));
    let files = uploads.flat_map(|upload| below(upload.path().join("transfers")));
    let data = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "data"));
    data.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_goes_on_with_its_upload_though_daemons_are_killed_amid_it() {
    let platform = Platform::start_with(&Options::with(FORGIVING));
    let source = platform.release("source");
    fs::write(source.join("ballast"), noise(9, 64 << 20)).unwrap();
    let home = platform.home.path().to_owned();
    let words = ["push".to_owned(), source.display().to_string(), "--name".to_owned(), "shop".to_owned()];
    let pushing = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        workshop::nexushub(&home, &words)
    });
    let mut before = 0;
    for victim in ["debug-api", "proxy"] {
        let moved = async {
            while all_kept(&platform) <= before && !pushing.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        soon("the upload moves on", moved).await;
        before = all_kept(&platform);
        platform.kill(victim).await;
    }
    let output = pushing.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(platform.https().get("shop", "/").await.status, 200);
}
