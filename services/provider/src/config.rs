//! The table `[provider]`.

use std::path::PathBuf;

use nexushub_chassis::{
    Fault,
    launch::fault::EXIT_USAGE,
    names::{ADMIN_INSTANCE, InstanceId, LOGIN_INSTANCE, RESERVED_HOSTS, is_name},
};
use serde::Deserialize;
use toml::Spanned;

use crate::{
    instance::{Driver, Egress},
    typed::Typed,
};

/// Most debug instances that may be asked for.
pub const MAX_DEBUG_INSTANCES: usize = 1000;
/// Most earlier packages of an application that may be asked for.
const MAX_KEEP_RELEASES: usize = 100;

/// `[provider]` and its `[[provider.instance]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of further static instances, one file each or more; it need not exist.
    pub apps_dir: PathBuf,
    /// Most debug instances at a time.
    pub max_debug_instances: usize,
    /// Whether the applications of the admin app run; without a static instance of it there is nobody to ask.
    pub follow_admin: bool,
    /// Instances that only the configuration may give.
    pub reserved_instances: Vec<InstanceId>,
    /// Host names, relative to the base domain, that only the configuration may give.
    pub reserved_hosts: Vec<String>,
    /// Instances missing in the admin app's list are kept if they are more than so many percent of all.
    pub hold_share_percent: u32,
    /// And at least so many.
    pub hold_least: usize,
    /// Packages of an application that are kept besides the current one.
    pub keep_releases: usize,
    /// How the admin app's instances are isolated.
    pub dynamic_driver: Driver,
    /// What they may reach.
    pub dynamic_egress: Egress,
    /// Static instances.
    pub instance: Vec<Spanned<Typed>>,
}

impl Default for Config {
    fn default() -> Self {
        let id = |text| InstanceId::parse(text).expect("the well-known ids are ids");
        Self {
            apps_dir: PathBuf::from("apps.d"),
            max_debug_instances: 64,
            follow_admin: true,
            reserved_instances: [LOGIN_INSTANCE, ADMIN_INSTANCE].map(id).to_vec(),
            reserved_hosts: RESERVED_HOSTS.map(str::to_owned).to_vec(),
            hold_share_percent: 50,
            hold_least: 3,
            keep_releases: 5,
            dynamic_driver: Driver::Auto,
            dynamic_egress: Egress::None,
            instance: Vec::new(),
        }
    }
}

impl Config {
    /// Judges the values that stand for themselves.
    ///
    /// # Errors
    /// The first that can't be, by its key.
    pub fn judge(&self) -> Result<(), Fault> {
        let wrong = |key: &str, msg: String, hint: &str| {
            Err(Fault {
                exit: EXIT_USAGE,
                ..Fault::new("config_invalid", msg, format!("provider.{key}"), hint)
            })
        };
        let (debug, keep, share) = (self.max_debug_instances, self.keep_releases, self.hold_share_percent);
        if debug > MAX_DEBUG_INSTANCES {
            let msg = format!("{debug} is more than {MAX_DEBUG_INSTANCES}");
            return wrong("max_debug_instances", msg, "ask for fewer");
        }
        if keep > MAX_KEEP_RELEASES {
            return wrong("keep_releases", format!("{keep} is more than {MAX_KEEP_RELEASES}"), "keep fewer");
        }
        if share > 100 {
            return wrong("hold_share_percent", format!("{share} is more than 100"), "100 means: never");
        }
        if let Some(host) = self.reserved_hosts.iter().find(|host| !is_name(host)) {
            return wrong("reserved_hosts", format!("`{host}` is no host name"), "use relative host names");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_lies_are_refused_with_their_key() {
        Config::default().judge().unwrap();
        let object = |config: Config| config.judge().unwrap_err().object;
        let many = Config { max_debug_instances: 1001, ..Config::default() };
        assert_eq!(object(many), "provider.max_debug_instances");
        let share = Config { hold_share_percent: 101, ..Config::default() };
        assert_eq!(object(share), "provider.hold_share_percent");
        let keep = Config { keep_releases: 101, ..Config::default() };
        assert_eq!(object(keep), "provider.keep_releases");
        let hosts = Config { reserved_hosts: vec!["a b".into()], ..Config::default() };
        assert_eq!(object(hosts), "provider.reserved_hosts");
    }
}
