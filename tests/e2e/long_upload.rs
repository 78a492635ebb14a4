//! One large upload by the command line while client and daemons are killed again and again: it goes on where it was, ends as what it
//! was to be, and takes no memory for it. `NEXUSHUB_SCALE` makes it 10 GB and forty-five kills.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Instant,
};

use data_encoding::HEXLOWER;
use nexushub_e2e::{
    FORGIVING, Options, Platform, processes, raw::noise, rounds_up_to, soon, until, workshop,
};
use sha2::{Digest, Sha256};

/// What is uploaded is no package but for its size and its first bytes, so that the platform alone can tell.
const ZST: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const MIB: u64 = 1 << 20;
/// So much may be uploaded.
const ROOM: &str = "[debug-api]\ndriver = \"process\"\nmax_package_bytes = 17179869184\n";
/// What the daemons on the way may have more than before, in KiB.
const MORE_KIB: usize = 32 << 10;
/// The daemons on the way.
const WAY: [&str; 2] = ["debug-api", "proxy"];

/// Writes so many bytes of which no two MiB are alike, and says what they are.
fn write(path: &Path, bytes: u64) -> String {
    let (mut file, mut digest, mut block) = (File::create(path).unwrap(), Sha256::new(), noise(1, 1 << 20));
    for number in 0..bytes / MIB {
        block[8..16].copy_from_slice(&number.to_be_bytes());
        block[..4].copy_from_slice(&ZST);
        digest.update(&block);
        file.write_all(&block).unwrap();
    }
    HEXLOWER.encode(&digest.finalize())
}

/// Who is killed, and when: after so many parts of a thousand.
fn plan() -> Vec<(u64, &'static str)> {
    let often = rounds_up_to(2, 20) as u64;
    let kinds = [("client", often), ("debug-api", often), ("proxy", rounds_up_to(1, 5) as u64)];
    let each = |(victim, times): (&'static str, u64)| {
        (0..times).map(move |time| ((2 * time + 1) * 900 / (2 * times), victim))
    };
    let mut plan: Vec<_> = kinds.into_iter().flat_map(each).collect();
    plan.sort_unstable();
    plan
}

/// Bytes that the platform has of the one upload that there is; none while there is none.
fn kept(state: &Path) -> Option<u64> {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let uploads = below(state.join("debug-api/uploads"));
    let mut files = uploads.flat_map(|upload| below(upload.path().join("transfers")));
    let data = files.find(|file| file.path().extension().is_some_and(|kind| kind == "data"))?;
    data.metadata().ok().map(|file| file.len())
}

/// The story's people and what it measures.
struct Scene {
    platform: Platform,
    source: PathBuf,
    client: Child,
    /// Memory of the daemons on the way before anything came.
    idle: Vec<usize>,
    /// The most of what any of them had more since, in KiB.
    most: usize,
}

impl Scene {
    async fn set(bytes: u64) -> (Self, String) {
        let platform = Platform::start_with(&Options::with(&format!("{FORGIVING}{ROOM}")));
        let source = platform.home.path().join("large.tar.zst");
        let digest = write(&source, bytes);
        let mut idle = Vec::new();
        for name in WAY {
            idle.push(processes::kib(platform.daemon(name).await.pid, "VmRSS"));
        }
        let client = client(&platform, &source);
        (Self { platform, source, client, idle, most: 0 }, digest)
    }

    /// Looks at what the daemons' memory came to.
    async fn measure(&mut self) {
        for (name, idle) in WAY.into_iter().zip(&self.idle) {
            let most = processes::kib(self.platform.daemon(name).await.pid, "VmHWM");
            self.most = self.most.max(most.saturating_sub(*idle));
        }
    }

    async fn until_kept(&mut self, bytes: u64) {
        let state = self.platform.state();
        let client = &mut self.client;
        let ended = until("the upload moves on", || {
            let ended = client.try_wait().unwrap().is_some();
            (ended || kept(&state).is_some_and(|kept| kept >= bytes)).then_some(ended)
        })
        .await;
        if ended {
            panic!("the client has ended before its upload: {}", self.end().await);
        }
    }

    async fn kill(&mut self, victim: &str) {
        self.measure().await;
        if victim == "client" {
            self.client.kill().unwrap();
            self.client.wait().unwrap();
            self.client = client(&self.platform, &self.source);
        } else {
            self.platform.kill(victim).await;
        }
    }

    /// What the client says at its end.
    async fn end(&mut self) -> String {
        let mut said = self.client.stderr.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            said.read_to_string(&mut text).unwrap();
            text
        });
        soon("the client ends", read).await.unwrap()
    }
}

fn client(platform: &Platform, source: &Path) -> Child {
    let mut command =
        workshop::typed(platform.home.path(), &["push", source.to_str().unwrap(), "--name", "large"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_comes_through_though_client_and_daemons_are_killed_and_takes_no_memory() {
    let bytes = rounds_up_to(160, 9537) as u64 * MIB;
    let (mut scene, digest) = Scene::set(bytes).await;
    let began = Instant::now();
    let plan = plan();
    for (thousandth, victim) in &plan {
        scene.until_kept(bytes / 1000 * thousandth).await;
        scene.kill(victim).await;
    }
    let said = scene.end().await;
    assert!(said.contains("could not install the package"), "it is up, but no package: {said}");
    let took = began.elapsed();
    scene.measure().await;
    scene.client.wait().unwrap();
    let developer = scene.platform.developer();
    let id = developer.list().await[0]["id"].as_str().unwrap().to_owned();
    let status = developer.get(&id, "/upload/status").await.json();
    assert_eq!((status["completed"].as_bool(), status["fileSha256"].as_str()), (Some(true), Some(&*digest)));
    println!(
        "{} MiB, {} kills: {:.1} s, {:.0} MB/s; at most {} KiB more memory",
        bytes / MIB,
        plan.len(),
        took.as_secs_f64(),
        bytes as f64 / 1e6 / took.as_secs_f64(),
        scene.most,
    );
    assert!(scene.most <= MORE_KIB, "{} KiB more", scene.most);
}
