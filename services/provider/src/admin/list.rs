//! The admin app's list of applications, from its text to judged entries. One that is no list is refused whole; an entry that is
//! none is left out, and said. Bounded while it is read: however long the text, no more entries are held than there may be.

use std::{collections::BTreeMap, fmt};

use nexushub_chassis::names::{InstanceId, shown};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};

use crate::{admin::application::Application, instance::Entry, typed::Judge};

/// Most applications in a list.
pub const APPLICATIONS_MAX: usize = 10_000;
/// Most refusals that are told.
const REFUSALS_MAX: usize = 100;

/// A list as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What is good.
    pub entries: BTreeMap<InstanceId, Entry>,
    /// Instances of which something was said that can't be.
    pub garbled: Vec<InstanceId>,
    /// Whether something was said of which nobody can tell what instance is meant: it may be any.
    pub nameless: bool,
    /// What was left out and why; the first of them.
    pub refused: Vec<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(deserialize_with = "rows")]
    applications: Vec<Row>,
}

/// One element of the list, whatever it is.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Whole(Box<Application>),
    Named(Named),
    Other(IgnoredAny),
}

/// Enough to tell which instance is meant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    instance_id: String,
}

/// Reads a list.
///
/// # Errors
/// When the text is none, or holds more than there may be.
pub fn read(text: &[u8], judge: &Judge) -> Result<List, serde_json::Error> {
    let page: Page = serde_json::from_slice(text)?;
    let mut list = List::default();
    for row in page.applications {
        list.take(row, judge);
    }
    Ok(list)
}

impl List {
    fn take(&mut self, row: Row, judge: &Judge) {
        match row {
            Row::Whole(application) => {
                let id = application.instance_id.clone();
                match application.judged(judge) {
                    Ok(entry) if self.entries.contains_key(&entry.id) => {
                        self.refuse(&id, "the same id is listed twice");
                    }
                    Ok(entry) => drop(self.entries.insert(entry.id.clone(), entry)),
                    Err(bad) => self.refuse(&id, &bad.to_string()),
                }
            }
            Row::Named(Named { instance_id }) => {
                self.refuse(
                    &instance_id,
                    "its appId or hostName is missing, or something of it is not of its kind",
                );
            }
            Row::Other(IgnoredAny) => self.refuse("", "it is no application"),
        }
    }

    fn refuse(&mut self, id: &str, why: &str) {
        match InstanceId::parse(id) {
            Ok(id) => self.garbled.push(id),
            Err(_) => self.nameless = true,
        }
        if self.refused.len() < REFUSALS_MAX {
            self.refused.push(format!("entry {}: {why}", shown(id)));
        }
    }
}

fn rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Row>, D::Error> {
    struct Rows;
    impl<'de> Visitor<'de> for Rows {
        type Value = Vec<Row>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of applications")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Row>, A::Error> {
            let mut rows = Vec::new();
            while let Some(row) = list.next_element()? {
                if rows.len() == APPLICATIONS_MAX {
                    return Err(A::Error::custom(format_args!("more than {APPLICATIONS_MAX} applications")));
                }
                rows.push(row);
            }
            Ok(rows)
        }
    }
    deserializer.deserialize_seq(Rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_chassis::names::Zone;
    use proptest::prelude::*;

    use super::*;

    fn judge() -> Judge {
        Judge { zone: Zone::new("b.localhost", 8443), root: None }
    }

    fn listed(text: &str) -> Result<List, String> {
        read(text.as_bytes(), &judge()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_application_is_read_as_the_contract_has_it() {
        let list = listed(
            r#"{"applications":[{"instanceId":"i","appId":"shop","displayName":"The shop",
                "hostName":"Shop.b.localhost:8443","debugPublishToken":"x","signIn":true},
                {"instanceId":"j","appId":"j","displayName":"","hostName":"j"}],"more":1}"#,
        );
        let list = list.unwrap();
        assert_eq!(list.refused, [""; 0]);
        let fields: Vec<_> = list.entries.values().map(|entry| &entry.fields).collect();
        assert_eq!(fields[0].app_id.as_deref(), Some("shop"));
        assert_eq!(fields[0].display_name.as_deref(), Some("The shop"));
        assert_eq!(fields[0].host_name.as_ref().unwrap().as_str(), "shop");
        assert_eq!((fields[1].display_name.as_ref(), fields[0].release.as_ref()), (None, None));
        assert!(fields[0].route.as_ref().unwrap().sign_in && fields[1].route.is_none());
    }

    #[test]
    fn what_is_no_list_is_refused_whole() {
        for garbage in [
            "",
            "null",
            "[]",
            "{}",
            "<html>",
            r#"{"applications":null}"#,
            r#"{"applications":{}}"#,
            r#"{"applications":"#,
            r#"{"applications":[{"instanceId":"i","appId":"a","hostName":"h"}"#,
            r#"{"applications":[]} {"applications":[]}"#,
        ] {
            assert!(listed(garbage).is_err(), "{garbage}");
        }
        let many = format!(r#"{{"applications":[{}1]}}"#, "1,".repeat(APPLICATIONS_MAX));
        assert!(listed(&many).unwrap_err().contains("more than 10000"));
    }

    #[test]
    fn a_bad_entry_is_left_out_and_told_and_the_others_stay() {
        let list = listed(
            r#"{"applications":[
                {"instanceId":"good","appId":"a","hostName":"good"},
                {"instanceId":"../x","appId":"a","hostName":"h"},
                {"instanceId":"b","appId":"","hostName":"h"},
                {"instanceId":"c","appId":"a","hostName":"no name"},
                {"instanceId":"d","appId":7,"hostName":"h"},
                {"instanceId":"good","appId":"a","hostName":"twin"},
                {"instanceId":"f","appId":"a","hostName":"f","callers":"good"},
                {"instanceId":"g","appId":"a","hostName":"g","limits":{"memoryBytes":1}},
                {"instanceId":"e"}, {"instanceId":9}, 7, null, [], "x"]}"#,
        );
        let list = list.unwrap();
        assert_eq!(list.entries.keys().map(InstanceId::as_str).collect::<Vec<_>>(), ["good"]);
        assert_eq!(list.refused.len(), 13, "{:?}", list.refused);
        assert!(list.refused[2].contains("host name"), "{:?}", list.refused);
        let garbled: Vec<_> = list.garbled.iter().map(InstanceId::as_str).collect();
        assert_eq!(garbled, ["b", "c", "d", "good", "f", "g", "e"]);
    }

    #[test]
    fn a_row_whose_id_can_not_be_read_may_mean_any_instance() {
        for row in ["null", "7", "[]", "{}", r#"{"instanceId":9}"#, r#"{"instanceId":"../x","hostName":"h"}"#]
        {
            assert!(listed(&format!(r#"{{"applications":[{row}]}}"#)).unwrap().nameless, "{row}");
        }
        assert!(!listed(r#"{"applications":[{"instanceId":"e"}]}"#).unwrap().nameless);
        assert!(!listed(r#"{"applications":[]}"#).unwrap().nameless);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in ".{0,200}", id in ".{0,80}", host in ".{0,80}") {
            let _ = read(text.as_bytes(), &judge());
            let row = serde_json::json!({"instanceId": id, "appId": text, "hostName": host});
            let list = read(serde_json::json!({"applications": [row]}).to_string().as_bytes(), &judge()).unwrap();
            prop_assert_eq!(list.entries.len() + list.refused.len(), 1);
            prop_assert!(!list.refused.iter().any(|told| told.contains(char::is_control)));
        }
    }
}
