//! What this machine has of each driver, for operators.

use nexushub_proto::procmgr::{DriverStatus, ListDriversResponse};

use super::{Driver, Drivers, Missing, Process};
use crate::desired::Isolation;

impl Drivers {
    /// All drivers, the best first, with the reasons for those that there are not.
    pub(crate) fn inventory(&self) -> ListDriversResponse {
        let krun = self.krun.as_deref().map(|krun| krun as &dyn Driver);
        let sandbox = self.sandbox.as_deref().map(|sandbox| sandbox as &dyn Driver);
        let drivers = vec![status("krun", krun), status("sandbox", sandbox), status("process", Ok(&Process))];
        let looking = [self.krun.as_ref().err(), self.sandbox.as_ref().err(), self.egress.as_ref().err()];
        ListDriversResponse {
            drivers,
            auto: self.resolve(Isolation::Auto).map_or("", |driver| driver.name()).to_owned(),
            no_egress: self.egress.as_ref().err().map(why).unwrap_or_default(),
            looking: looking.contains(&Some(&Missing::Looking)),
            no_machine_egress: self.machine_egress.as_ref().err().map(why).unwrap_or_default(),
        }
    }
}

fn status(name: &str, found: Result<&dyn Driver, &Missing>) -> DriverStatus {
    let not_enforced = found.map(|driver| driver.not_enforced().to_vec()).unwrap_or_default();
    DriverStatus { name: name.to_owned(), missing: found.err().map(why).unwrap_or_default(), not_enforced }
}

/// The reason without advice, which depends on what it is told for.
fn why(missing: &Missing) -> String {
    match missing {
        Missing::Looking => missing.to_string(),
        Missing::Refused(why) | Missing::NoWayOut(why) => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::{with_sandbox, without_boxes};
    use crate::egress::Found;

    fn no_root() -> Found {
        Found { boxes: Err("needs root".into()), machines: Err("needs /dev/net/tun".into()) }
    }

    fn missing(told: &ListDriversResponse) -> Vec<(&str, &str)> {
        told.drivers.iter().map(|driver| (driver.name.as_str(), driver.missing.as_str())).collect()
    }

    #[test]
    fn each_driver_is_told_with_why_there_is_none_or_what_it_does_not_enforce() {
        let told = with_sandbox(&["landlock: no"]).with_egress(no_root()).inventory();
        assert_eq!(missing(&told), [("krun", "no /dev/kvm"), ("sandbox", ""), ("process", "")]);
        assert_eq!(told.drivers[1].not_enforced, ["landlock: no"]);
        assert_eq!((told.auto.as_str(), told.no_egress.as_str()), ("sandbox", "needs root"));
        assert_eq!(told.no_machine_egress, "needs /dev/net/tun");
        assert!(!told.looking);
    }

    #[test]
    fn a_search_under_way_is_told_as_such() {
        let told = Drivers::looking().inventory();
        assert!(told.looking && told.auto.is_empty());
    }

    #[test]
    fn auto_is_nothing_where_no_box_is_had() {
        let told = without_boxes("user namespaces are switched off").inventory();
        assert_eq!(told.auto, "");
        assert_eq!(missing(&told)[1], ("sandbox", "user namespaces are switched off"));
    }
}
