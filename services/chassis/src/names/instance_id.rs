//! The id of an instance. It names folders, sockets and cgroups, so nothing that could walk out of a folder ever becomes one.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::shown;

/// The longest id, in bytes.
const MAX: usize = 64;

/// Names an instance: 1 to 64 characters of `[A-Za-z0-9_-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

/// A text that is no instance id, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadInstanceId(String);

impl InstanceId {
    /// Judges an id as typed.
    ///
    /// # Errors
    /// When it can't be one.
    pub fn parse(typed: &str) -> Result<Self, BadInstanceId> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=MAX).contains(&typed.len()) && typed.bytes().all(fits) {
            return Ok(Self(typed.into()));
        }
        Err(BadInstanceId(shown(typed)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceId {
    type Error = BadInstanceId;

    fn try_from(text: String) -> Result<Self, BadInstanceId> {
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

impl fmt::Display for BadInstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance id {} is not 1 to {MAX} characters of [A-Za-z0-9_-]", self.0)
    }
}

impl std::error::Error for BadInstanceId {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_could_walk_out_of_a_folder_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "a\0", "a b", "ä", "a.b", &"x".repeat(65)] {
            assert!(InstanceId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "3bf3e3c0-6e51-482a-b180-00f6aa568ee9", "MBtskI6D", "_-", "A_z-9", &"x".repeat(64)]
        {
            assert_eq!(InstanceId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn an_id_is_judged_again_when_it_is_read_back() {
        let id = InstanceId::parse("a-1").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), r#""a-1""#);
        assert_eq!(serde_json::from_str::<InstanceId>(r#""a-1""#).unwrap(), id);
        let error = serde_json::from_str::<InstanceId>(r#""../x""#).unwrap_err();
        assert!(error.to_string().starts_with("instance id `../x` is not 1 to 64"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_harm(text in any::<String>()) {
            match InstanceId::parse(&text) {
                Ok(id) => prop_assert_eq!(id.as_str(), text),
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
            }
        }
    }
}
