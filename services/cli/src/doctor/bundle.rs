//! A file for whoever is to help: how everything is, and no secret. What comes from outside this command is searched for every secret
//! of the platform before it is written; what apps said, and their data, stay where they are.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nexushub_launch::secret::AppKey;

use crate::{failure::Failure, instances, metrics, place::Place, settings, status};

/// What stands where a secret stood.
const HIDDEN: &str = "(secret)";
/// Bytes of a log's end.
const LOG_MAX: u64 = 1 << 20;
/// Shortest digits that may be a secret.
const DIGITS: usize = 32;
/// What a block of a tar archive has.
const BLOCK: usize = 512;

/// Writes the file; `doctor` is what the examination came to.
pub(super) async fn write(place: &Place, path: &Path, doctor: &str) -> Result<(), Failure> {
    let secrets = secrets(place).await;
    let mut archive = Vec::new();
    for (name, text) in contents(place, doctor).await {
        add(&mut archive, name, redacted(&text, &secrets).as_bytes());
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    let failed = |error| Failure::io("write", path, &error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(&archive).map_err(failed)
}

/// What is in it; what can't be had says so.
async fn contents(place: &Place, doctor: &str) -> Vec<(&'static str, String)> {
    let or_why = |told: Result<String, Failure>| told.unwrap_or_else(|failure| failure.to_string());
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error));
    let config = place.config().and_then(|file| settings::text(&file));
    let machine = ["/proc/version", "/etc/os-release", "/proc/meminfo", "/proc/loadavg", "/proc/self/cgroup"];
    let machine = machine.map(|path| format!("== {path}\n{}\n", or_why(read(Path::new(path)))));
    vec![
        ("doctor.json", doctor.to_owned()),
        ("status.json", status::wordless(place).await),
        ("supervisor.json", or_why(read(&place.run.join("status.json")))),
        ("config.toml", or_why(config)),
        ("metrics.txt", or_why(metrics::text(place).await)),
        ("platform.log", or_why(end_of(&place.log_file()))),
        ("machine.txt", machine.concat()),
    ]
}

/// The end of a log.
fn end_of(path: &Path) -> Result<String, Failure> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        let begun = file.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX)))?;
        file.take(LOG_MAX).read_to_end(&mut text).map(|_| begun)
    });
    let begun = read.map_err(|error| Failure::io("read", path, &error))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // Half a line might end in half a secret, which nobody would know as one.
    Ok(match text.split_once('\n') {
        Some((_, whole)) if begun > 0 => whole.to_owned(),
        _ => text,
    })
}

/// Everything that nobody else may know: the tokens, what they are made of, and the apps' own.
async fn secrets(place: &Place) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in ["secret", "credentials", "operator"] {
        collect(&place.run.join(name), &mut found);
    }
    let key = fs::read_to_string(place.run.join("credentials/procmgr/app-key")).unwrap_or_default();
    if let (Some(key), Ok(list)) = (AppKey::from_hex(&key), instances::list(place).await) {
        found.extend(list.iter().map(|one| key.app_secret(&one.id)));
    }
    found
}

/// The long hexadecimal numbers of a file, or of all files of a folder.
fn collect(path: &Path, found: &mut BTreeSet<String>) {
    if let Ok(entries) = fs::read_dir(path) {
        entries.flatten().for_each(|entry| collect(&entry.path(), found));
        return;
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let is_secret = |word: &&str| word.len() >= DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    found.extend(text.split_whitespace().filter(is_secret).map(str::to_owned));
}

/// A text without secrets, nor private keys.
fn redacted(text: &str, secrets: &BTreeSet<String>) -> String {
    let text = secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
    let mut inside = false;
    let lines = text.lines().filter_map(|line| {
        let begins = line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
        let was_inside = inside;
        inside = (inside || begins) && !line.contains("-----END");
        match (was_inside, begins) {
            (_, true) => Some(HIDDEN),
            (true, false) => None,
            (false, false) => Some(line),
        }
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// One more file of a tar archive (ustar).
fn add(archive: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut head = [0; BLOCK];
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", bytes.len()));
    put(136, "00000000000\0");
    put(148, "        "); // the sum is made with blanks in its own place
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&head);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn what_is_written_is_an_archive_that_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Vec::new();
        let long = "x".repeat(1000);
        add(&mut archive, "a.txt", b"hello");
        add(&mut archive, "b.txt", long.as_bytes());
        archive.resize(archive.len() + 2 * BLOCK, 0);
        let path = folder.path().join("it.tar");
        fs::write(&path, archive).unwrap();
        let tar = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(folder.path()).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
        assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(folder.path().join("b.txt")).unwrap(), long);
    }

    #[test]
    fn every_secret_of_the_platform_is_found_and_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let (first, second) = ("ab".repeat(32), "cd".repeat(32));
        fs::create_dir_all(run.join("credentials/proxy")).unwrap();
        fs::write(run.join("credentials/proxy/token.procmgr"), &first).unwrap();
        fs::write(run.join("secret"), format!("boot {second}\n")).unwrap();
        let mut found = BTreeSet::new();
        collect(run, &mut found);
        assert_eq!(found, BTreeSet::from([first.clone(), second.clone()]));
        let text = redacted(&format!("a {first} b\nc{second}d\n"), &found);
        assert_eq!(text, "a (secret) b\nc(secret)d\n");
    }

    #[test]
    fn a_private_key_is_taken_out_and_what_stands_around_it_is_not() {
        let text = "a\n-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nb\n";
        assert_eq!(redacted(text, &BTreeSet::new()), "a\n(secret)\nb\n");
        assert_eq!(
            redacted("-----BEGIN CERTIFICATE-----\nx\n", &BTreeSet::new()),
            "-----BEGIN CERTIFICATE-----\nx\n"
        );
    }
}
