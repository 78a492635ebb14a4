//! What `driver = "auto"` means on this machine, and why nothing better.

use nexushub_proto::procmgr::{ListDriversRequest, ListDriversResponse};
use serde::Serialize;

use crate::{instances, place::Place, table::one_line};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Auto {
    /// krun or sandbox; empty = none, or not known yet.
    driver: String,
    /// Why it is none, or none better.
    reason: String,
}

impl Auto {
    /// What procmgr has found out; none where it can't be asked.
    pub(super) async fn ask(place: &Place) -> Option<Self> {
        let answer = instances::client(place).ok()?.list_drivers(ListDriversRequest {}).await.ok()?;
        Some(Self::from(answer.get_ref()))
    }

    /// For people; nothing where it is not known.
    pub(super) fn line(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let driver = if self.driver.is_empty() { "no driver" } else { &self.driver };
        let reason = if self.reason.is_empty() { "" } else { ": " };
        format!("auto is {driver} here{reason}{}", one_line(&self.reason))
    }
}

impl From<&ListDriversResponse> for Auto {
    fn from(told: &ListDriversResponse) -> Self {
        if told.auto.is_empty() && told.looking {
            return Self { driver: String::new(), reason: "the trials of this machine are under way".into() };
        }
        let better = told.drivers.iter().take_while(|driver| driver.name != told.auto);
        let missing = better.filter(|driver| !driver.missing.is_empty());
        let each = missing.map(|driver| format!("no {}, {}", driver.name, driver.missing));
        Self { driver: told.auto.clone(), reason: each.collect::<Vec<_>>().join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use nexushub_proto::procmgr::DriverStatus;

    use super::*;

    fn told(auto: &str, looking: bool) -> String {
        let driver = |name: &str, missing: &str| DriverStatus {
            name: name.into(),
            missing: missing.into(),
            ..DriverStatus::default()
        };
        let drivers =
            vec![driver("krun", "no /dev/kvm"), driver("sandbox", "no namespaces"), driver("process", "")];
        Auto::from(&ListDriversResponse { drivers, auto: auto.into(), looking, ..Default::default() }).line()
    }

    #[test]
    fn it_is_the_best_that_there_is_and_says_what_is_missing_for_a_better_one() {
        assert_eq!(told("krun", false), "auto is krun here");
        assert_eq!(told("sandbox", false), "auto is sandbox here: no krun, no /dev/kvm");
        assert_eq!(
            told("", false),
            "auto is no driver here: no krun, no /dev/kvm; no sandbox, no namespaces"
        );
        assert_eq!(told("", true), "auto is no driver here: the trials of this machine are under way");
    }
}
