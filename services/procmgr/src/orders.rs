//! What was ordered for instances and holds until it is taken back or done, whoever is killed or started anew meanwhile: which are
//! paused, which are asleep, and which are to be started anew. It is kept on disk and counts from the moment that it is there.

use std::{collections::BTreeMap, fs, io, path::Path};

use nexushub_chassis::launch::durable;
use serde::{Deserialize, Serialize};

use crate::ids::InstanceId;

/// Longest message of a pause.
pub(crate) const MESSAGE_BYTES: usize = 500;

/// Requests of an instance are not sent to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pause {
    /// For people who ask for the instance.
    pub message: String,
    /// They are refused at once; otherwise they wait.
    pub closed: bool,
    /// Since when, wall clock.
    pub since_unix: i64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Orders {
    /// The instances that are paused.
    pub paused: BTreeMap<InstanceId, Pause>,
    /// Those that are asleep, with the digest of what would be started.
    pub asleep: BTreeMap<InstanceId, String>,
    /// Those for which a restart was asked, with the generation that counted then. It is done once a newer one counts.
    pub restart: BTreeMap<InstanceId, u64>,
}

impl Orders {
    /// Reads them; none where there is no file.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => Ok(serde_json::from_slice(&read?)?),
        }
    }

    /// Writes them, durably.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        durable::write(path, &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// An instance is gone. Whether there was an order for it.
    pub(crate) fn forget(&mut self, id: &InstanceId) -> bool {
        let slept = self.asleep.remove(id).is_some();
        let restarted = self.restart.remove(id).is_some();
        self.paused.remove(id).is_some() || slept || restarted
    }

    /// Whether a restart was asked for while this generation counted, or was still to come.
    pub(crate) fn is_to_go(&self, id: &InstanceId, generation: u64) -> bool {
        self.restart.get(id).is_some_and(|newest| *newest >= generation)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn orders_are_read_as_they_were_written_and_none_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.json");
        assert_eq!(Orders::load(&path).unwrap(), Orders::default());
        let id = InstanceId::parse("a").unwrap();
        let mut orders = Orders::default();
        let pause = Pause { message: "back at noon".into(), closed: true, since_unix: 7 };
        orders.paused.insert(id.clone(), pause);
        orders.save(&path).unwrap();
        assert_eq!(Orders::load(&path).unwrap(), orders);
        assert!(orders.forget(&id) && !orders.forget(&id));
        orders.restart.insert(id.clone(), 3);
        assert_eq!([3, 4].map(|generation| orders.is_to_go(&id, generation)), [true, false]);
        assert!(orders.forget(&id) && !orders.is_to_go(&id, 3));
        fs::write(&path, "torn").unwrap();
        assert!(Orders::load(&path).is_err());
    }
}
