//! What the last process left behind: records are read, half-done things finished or thrown away, and provider is told
//! again what should run. Nothing here waits for another daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use futures_util::future::join_all;
use nexushub_chassis::chain;

use crate::{
    applications::{App, Hub},
    error::StorageError,
    folders::{Folders, remove_all, remove_app},
    install, receive,
    record::{Record, Wanted},
    transfer::{self, Sheet, Stage, Transfer},
    transfers,
    upload::{self, Progress, Session},
};

/// An application as it was found.
pub(crate) struct Found {
    pub(crate) record: Record,
    upload: Option<Session>,
    transfers: Vec<Arc<Transfer>>,
    /// All chunks are there, but the package is not known to be.
    whole: bool,
}

/// Reads the records and removes what belongs to nobody. Blocking.
pub(crate) fn read(folders: &Folders, max_bytes: u64) -> Result<Vec<Found>, StorageError> {
    let (mut known, mut found) = (BTreeSet::new(), Vec::new());
    for name in names(&folders.applications())? {
        let path = folders.applications().join(&name);
        let Some(id) = name.strip_suffix(".json").filter(|id| !id.starts_with('.')) else {
            let _ = fs::remove_file(&path); // the rest of a write that was cut short
            continue;
        };
        known.insert(id.to_owned());
        let record = fs::read(&path).and_then(|text| Record::read(&text).map_err(io::Error::other));
        match record {
            Ok(mut record) if record.id == id => {
                let transfers = transfers_of(folders, &mut record)?;
                found.push(Found { transfers, ..with_upload(folders, record, max_bytes) });
            }
            Ok(_) => {
                tracing::error!(path = %path.display(), "a record is not the one its name says; its files are left alone");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a record can't be read; its files are left alone");
            }
        }
    }
    for folder in [folders.uploads(), folders.apps()] {
        for stranger in names(&folder)?.iter().filter(|name| !known.contains(*name)) {
            remove_app(&folder.join(stranger))?;
        }
    }
    for name in names(&folders.tmp())? {
        let path = folders.tmp().join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(StorageError::of("remove", &path))?;
    }
    Ok(found)
}

fn names(folder: &Path) -> Result<Vec<String>, StorageError> {
    let entries = fs::read_dir(folder).map_err(StorageError::of("read", folder))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

fn with_upload(folders: &Folders, record: Record, max_bytes: u64) -> Found {
    let chunks = folders.chunks(&record.id);
    let file = fs::read(chunks.join("session.json")).ok();
    let file = file.and_then(|text| serde_json::from_slice::<upload::File>(&text).ok());
    let Some(file) = file else {
        let upload = record.package.clone().map(Session::complete);
        return Found { record, upload, transfers: Vec::new(), whole: false };
    };
    let mut session = Session::new(file);
    let mut whole = false;
    for name in names(&chunks).unwrap_or_default() {
        let size = fs::metadata(chunks.join(&name)).map(|metadata| metadata.len());
        if let (Ok(index), Ok(size)) = (name.parse(), size) {
            whole |= session.receive(index, size, max_bytes) == Progress::Whole;
        }
    }
    Found { record, upload: Some(session), transfers: Vec::new(), whole }
}

/// The resumable uploads of an application. One whose bytes were about to be the package is that now; what can't be gone on with
/// is removed.
fn transfers_of(folders: &Folders, record: &mut Record) -> Result<Vec<Arc<Transfer>>, StorageError> {
    let folder = folders.transfers(&record.id);
    let (names, mut found) = (names(&folder).unwrap_or_default(), BTreeMap::new());
    for id in names.iter().filter_map(|name| transfer::id_of(name)) {
        match Sheet::read(&folder, id) {
            Ok(Some(mut sheet)) => {
                take_place(folders, record, &mut sheet)?;
                found.insert(id, Transfer::new(id.to_owned(), sheet));
            }
            Ok(None) => tracing::warn!(instance = record.id, upload = id, "an upload can't be gone on with"),
            Err(error) => {
                tracing::warn!(instance = record.id, error = chain(&error), "an upload can't be read");
            }
        }
    }
    let known = |name: &&String| name.rsplit_once('.').is_some_and(|(id, _)| found.contains_key(id));
    for stray in names.iter().filter(|name| !known(name)) {
        let _ = fs::remove_file(folder.join(stray));
    }
    Ok(found.into_values().collect())
}

fn take_place(folders: &Folders, record: &mut Record, sheet: &mut Sheet) -> Result<(), StorageError> {
    let Stage::Placing(file) = sheet.about.stage.clone() else { return Ok(()) };
    sheet.take_place(&folders.package(&record.id))?;
    record.package = Some(file);
    record.keep(&folders.record(&record.id))?;
    remove_all(&folders.chunks(&record.id))?;
    sheet.placed()
}

/// An application and whether its upload is to be assembled.
pub(crate) struct Revived {
    app: Arc<App>,
    whole: bool,
}

/// Turns what was found into applications.
pub(crate) fn revive(found: Vec<Found>) -> Vec<Revived> {
    found
        .into_iter()
        .map(|found| Revived {
            app: App::new(found.record, found.upload, found.transfers),
            whole: found.whole,
        })
        .collect()
}

/// Those that are there for clients; the others are on their way out.
pub(crate) fn present(revived: &[Revived]) -> Vec<Arc<App>> {
    let present = revived.iter().filter(|revived| revived.app.state().record.wanted != Wanted::Gone);
    present.map(|revived| Arc::clone(&revived.app)).collect()
}

/// Finishes or undoes what was under way; goes on until the drain.
pub(crate) async fn resume_all(hub: Arc<Hub>, revived: Vec<Revived>) {
    join_all(revived.into_iter().map(|revived| resume(Arc::clone(&hub), revived))).await;
    hub.shutdown.draining().await;
}

/// Finishes or undoes what was under way in one application.
async fn resume(hub: Arc<Hub>, Revived { app, whole }: Revived) {
    let record = app.record();
    if record.wanted == Wanted::Gone {
        app.gone.cancel();
        return hub.bury(app, false).await;
    }
    {
        let _working = app.work.lock().await;
        if whole && let Err(error) = receive::complete(&hub, &app).await {
            tracing::warn!(instance = app.id, error = chain(&error), "could not finish an upload");
        }
        if record.installing.is_some()
            && let Err(error) = hub.change(&app, |record| record.installing = None).await
        {
            tracing::warn!(instance = app.id, error = chain(&error), "could not take up an install");
        }
    }
    transfers::finish_all(&hub, &app).await;
    install::prune(&hub, &app).await;
    if record.installing.is_some() {
        match install::install(&hub, &app, None).await {
            Ok(_) => tracing::info!(instance = app.id, "finished an install that was under way"),
            Err(error) => tracing::warn!(
                instance = app.id,
                error = chain(&error),
                "could not finish an install that was under way"
            ),
        }
    }
    install::settle(hub, app).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{folders::private, record::tests::record, upload::Md5Hex};

    fn write(folders: &Folders, record: &Record) {
        fs::write(folders.record(&record.id), serde_json::to_vec(record).unwrap()).unwrap();
    }

    #[test]
    fn what_belongs_to_nobody_is_removed_and_what_cannot_be_read_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let folders = Folders::create(state.path()).unwrap();
        write(&folders, &record("a"));
        fs::write(folders.record("torn"), "{").unwrap();
        write(&folders, &Record { id: "later".to_owned(), version: 3, ..record("b") });
        fs::write(folders.applications().join(".id-1.json.tmp"), "{").unwrap();
        for id in ["id-1", "torn", "later", "stranger"] {
            private(&folders.data(id)).unwrap();
            private(&folders.chunks(id)).unwrap();
        }
        private(&folders.scratch()).unwrap();
        fs::write(folders.scratch(), "x").unwrap();

        let found = read(&folders, 100).unwrap();
        assert_eq!(found.iter().map(|found| found.record.id.as_str()).collect::<Vec<_>>(), ["id-1"]);
        assert!(
            folders.data("id-1").is_dir()
                && folders.data("torn").is_dir()
                && folders.data("later").is_dir()
                && folders.record("torn").is_file()
        );
        assert!(!folders.app("stranger").exists() && !folders.upload("stranger").exists());
        assert_eq!(names(&folders.tmp()).unwrap().len(), 0);
        assert_eq!(names(&folders.applications()).unwrap().len(), 3);
    }

    #[test]
    fn an_upload_goes_on_where_it_was() {
        let state = tempfile::tempdir().unwrap();
        let folders = Folders::create(state.path()).unwrap();
        write(&folders, &record("a"));
        private(&folders.chunks("id-1")).unwrap();
        let file = upload::File { hash: Some(Md5Hex::of(&[1; 16])), sha256: None, total: 2 };
        fs::write(folders.chunks("id-1").join("session.json"), serde_json::to_vec(&file).unwrap()).unwrap();
        fs::write(folders.chunks("id-1").join("1"), "xx").unwrap();
        let found = read(&folders, 100).unwrap();
        assert!(!found[0].whole);
        assert_eq!(found[0].upload.as_ref().unwrap().report("id-1").received_chunks, 1);
        fs::write(folders.chunks("id-1").join("0"), "xx").unwrap();
        assert!(read(&folders, 100).unwrap()[0].whole);
    }
}
