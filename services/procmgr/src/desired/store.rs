//! The last desired set, kept on disk: procmgr restarted while the provider is dead goes on managing from it.

use std::{fs, io, path::Path, sync::Arc};

use nexushub_chassis::launch::durable;
use serde::{Deserialize, Serialize};

use super::{Desired, DesiredSet};

#[derive(Serialize)]
struct Out<'a> {
    version: u32,
    instances: Vec<&'a Desired>,
}

#[derive(Deserialize)]
struct In {
    version: u32,
    instances: Vec<Desired>,
}

/// Writes the set, durably.
pub(crate) fn save(path: &Path, set: &DesiredSet) -> io::Result<()> {
    let out = Out { version: 1, instances: set.values().map(Arc::as_ref).collect() };
    durable::write(path, &serde_json::to_vec_pretty(&out)?, 0o600)
}

/// Reads the set. `None`: there is none yet.
pub(crate) fn load(path: &Path) -> io::Result<Option<DesiredSet>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let file: In = serde_json::from_slice(&bytes)?;
    if file.version != 1 {
        let found = format!("version {} is not known here", file.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, found));
    }
    Ok(Some(file.instances.into_iter().map(|one| (one.id.clone(), Arc::new(one.sealed()))).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_saved_set_loads_as_it_was_and_garbage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desired.json");
        assert!(load(&path).unwrap().is_none());
        let mut told = super::super::tests::proto("a");
        told.route =
            Some(nexushub_proto::provider::Route { hosts: vec!["*.a".into()], ..Default::default() });
        let one = Desired::from_proto(told, 1_000).unwrap();
        let set: DesiredSet = [(one.id.clone(), Arc::new(one))].into();
        save(&path, &set).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), set);
        fs::write(&path, b"{\"version\":1,\"instances\":[{\"id\":\"../x\"}]}").unwrap();
        assert!(load(&path).is_err());
        fs::write(&path, b"\x00garbage").unwrap();
        assert!(load(&path).is_err());
    }
}
