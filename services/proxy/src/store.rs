//! The kept table: `$STATE/proxy/routes.json`, so that a proxy that starts while procmgr is dead routes as before.
//!
//! Replaced in one step, on change, but a moment after it was routed by: a host name that it doesn't know may exist, and waits for
//! procmgr's word. A file that is torn, hostile or of another version is ignored with a warning. Ports mean
//! nothing after a reboot, so a table of another boot is loaded without them: its apps are known, and starting.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use nexushub_chassis::launch::{clock, durable};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    host,
    pool::Limits,
    table::{Entry, Source, State, Table},
};

/// Form of the file.
const VERSION: u32 = 2;
/// A kept table is smaller than this.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// The boot in which the ports were given.
    boot: String,
    instances: Vec<Entry>,
}

/// Why a kept table isn't used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("could not read it")]
    Read(#[from] io::Error),
    #[error("not a table")]
    Form(#[from] serde_json::Error),
    #[error("form {0} is not known")]
    Version(u32),
    #[error("an instance without a usable id or host name")]
    Instance,
    #[error("too large")]
    Size,
}

/// Where the table is kept.
pub(crate) fn path(state: &Path) -> PathBuf {
    state.join("proxy").join("routes.json")
}

/// The kept table, or an empty one.
pub(crate) fn load(path: &Path, limits: Limits) -> Table {
    match read(path, limits, &boot()) {
        Ok(Some(table)) => {
            tracing::info!(instances = table.entries().count(), "kept routes loaded");
            table
        }
        Ok(None) => Table::empty(limits),
        Err(error) => {
            let error = nexushub_chassis::chain(&error);
            tracing::warn!(object = %path.display(), error, "kept routes are ignored");
            Table::empty(limits)
        }
    }
}

fn read(path: &Path, limits: Limits, boot: &str) -> Result<Option<Table>, Unusable> {
    let content =
        match std::fs::metadata(path).and_then(|metadata| Ok((metadata.len(), std::fs::read(path)?))) {
            Ok((length, _)) if length > MOST_BYTES => return Err(Unusable::Size),
            Ok((_, content)) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    let kept: Kept = serde_json::from_slice(&content)?;
    if kept.version != VERSION {
        return Err(Unusable::Version(kept.version));
    }
    if kept.instances.iter().any(|entry| entry.id.is_empty() || !host::is_name(&entry.host)) {
        return Err(Unusable::Instance);
    }
    let same_boot = kept.boot == boot;
    let entries =
        kept.instances.into_iter().map(|entry| if same_boot { entry } else { rebooted(entry) }).collect();
    Ok(Some(Table::kept(entries, limits)))
}

fn rebooted(entry: Entry) -> Entry {
    let reason = "the machine was restarted".into();
    Entry {
        state: State::Starting,
        reason,
        endpoint: None,
        routed: false,
        retry_unix_ms: 0,
        beside: Vec::new(),
        ..entry
    }
}

/// Writes the table whenever what is kept of it differs from the file, until the watch closes.
pub(crate) async fn keep(path: PathBuf, mut table: watch::Receiver<Arc<Table>>) {
    let boot = boot();
    let mut written = std::fs::read(&path).unwrap_or_default();
    loop {
        let now = Arc::clone(&table.borrow_and_update());
        let next = encode(&now, &boot);
        if now.source != Source::Nothing && next != written {
            let (target, content) = (path.clone(), next.clone());
            match spawn_blocking(move || write(&target, &content)).await {
                Ok(Ok(())) => written = next,
                Ok(Err(error)) => {
                    tracing::warn!(object = %path.display(), %error, "routes could not be kept");
                }
                Err(_) => return, // the runtime ends
            }
        }
        if table.changed().await.is_err() {
            return;
        }
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    durable::write(path, content, 0o600)
}

fn encode(table: &Table, boot: &str) -> Vec<u8> {
    let instances = table.entries().cloned().collect();
    let kept = Kept { version: VERSION, boot: boot.to_owned(), instances };
    serde_json::to_vec_pretty(&kept).expect("plain data is always JSON")
}

fn boot() -> String {
    clock::boot_id().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::table::{Change, tests::running};

    fn some() -> Table {
        let entries = vec![running("a", "a", 10_000), running("b", "shop.debug", 10_001)];
        Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true })
    }

    #[test]
    fn a_kept_table_routes_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        write(&path, &encode(&some(), "this boot")).unwrap();
        let table = read(&path, Limits::default(), "this boot").unwrap().unwrap();
        assert!(table.entries().eq(some().entries()));
        assert_eq!((table.source, table.complete), (Source::Kept, false), "the last news may be missing");
    }

    #[test]
    fn after_a_reboot_apps_are_known_but_their_ports_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        write(&path, &encode(&some(), "last boot")).unwrap();
        let table = read(&path, Limits::default(), "this boot").unwrap().unwrap();
        let route = table.by_host("a").unwrap();
        assert_eq!(
            (route.entry.state, route.entry.routed, &route.entry.endpoint),
            (State::Starting, false, &None)
        );
    }

    #[test]
    fn no_file_is_no_table() {
        let table = load(Path::new("/nonexistent/routes.json"), Limits::default());
        assert_eq!(table.source, Source::Nothing);
    }

    #[test]
    fn torn_and_hostile_files_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        let whole = encode(&some(), "this boot");
        for length in (0..whole.len()).step_by(7) {
            write(&path, &whole[..length]).unwrap();
            assert_eq!(load(&path, Limits::default()).source, Source::Nothing, "{length} bytes");
        }
        let text = String::from_utf8(whole).unwrap();
        for (what, hostile) in [
            ("zeros", "\0".repeat(4096)),
            ("another version", text.replace("\"version\": 2", "\"version\": 1")),
            ("an unknown field", text.replace("\"boot\"", "\"extra\": 1, \"boot\"")),
            ("a host with a path", text.replace("shop.debug", "../shop")),
            ("no id", text.replace("\"id\": \"a\"", "\"id\": \"\"")),
            ("a port too high", text.replace("10000", "70000")),
            ("nesting", "[".repeat(100_000)),
        ] {
            assert_ne!(hostile, text, "{what}");
            write(&path, hostile.as_bytes()).unwrap();
            assert_eq!(load(&path, Limits::default()).source, Source::Nothing, "{what}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(load(&path, Limits::default()).source, Source::Nothing, "a folder");
    }

    #[tokio::test]
    async fn a_change_is_written_and_the_end_of_the_table_ends_the_keeping() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        let (sender, table) = watch::channel(Arc::new(Table::empty(Limits::default())));
        let keeping = tokio::spawn(keep(path.clone(), table));
        sender.send_replace(Arc::new(some()));
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(load(&path, Limits::default()).entries().count(), 2);
    }
}
