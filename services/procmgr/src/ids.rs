//! The id of an instance: 1 to 64 characters of `[A-Za-z0-9_-]`. It names folders and sockets, so nothing that could walk
//! out of a folder ever becomes one.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A checked instance id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

/// What is wrong with a would-be id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("instance id {0:?} is not 1 to 64 characters of [A-Za-z0-9_-]")]
pub struct BadId(pub String);

impl InstanceId {
    /// Judges a text.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let fits = (1..=64).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Ok(Self(text.into()));
        }
        Err(BadId(text.chars().take(80).collect()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        Self::parse(&text)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_that_could_walk_out_of_a_folder_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a\0", "a b", "ä", "a.b", &"x".repeat(65)] {
            assert!(InstanceId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "3bf3e3c0-6e51-482a-b180-00f6aa568ee9", "MBtskI6D", "_-", &"x".repeat(64)] {
            assert_eq!(InstanceId::parse(good).unwrap().as_str(), good);
        }
    }
}
