//! The environment of an app: what the platform promises and what its own configuration lists, nothing else - in
//! particular nothing of procmgr's own. Configured names never displace the platform's.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use nexushub_chassis::names::is_platform_variable;

use crate::{config::Config, desired::Desired};

/// What every app of the platform is told.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// Host names are relative to it.
    pub base_domain: String,
    /// The port in an app's public name.
    pub public_port: u16,
    /// The CA certificate, if there is one.
    pub ca_file: Option<PathBuf>,
    /// `PATH`.
    pub path: String,
    /// `LANG`.
    pub lang: String,
}

impl Surroundings {
    /// From the configuration; `ca_file` is already resolved.
    pub(crate) fn new(config: &Config, base_domain: &str, public_port: u16, ca_file: &Path) -> Self {
        Self {
            base_domain: base_domain.to_owned(),
            public_port,
            ca_file: ca_file.is_file().then(|| ca_file.to_owned()),
            path: config.app_path.clone(),
            lang: config.app_lang.clone(),
        }
    }

    /// The line of a hosts file that says where a box finds the platform.
    pub(crate) fn internal_host(&self) -> String {
        format!("127.0.0.1 internal.{}", self.base_domain)
    }

    /// The authority of the platform's internal entrance, which is on the loopback interface at this port.
    fn entrance(&self, port: u16) -> String {
        format!("internal.{}:{port}", self.base_domain)
    }

    /// The public authority of an instance.
    pub(crate) fn host(&self, relative: &str) -> String {
        if relative.is_empty() {
            return format!("{}:{}", self.base_domain, self.public_port);
        }
        format!("{relative}.{}:{}", self.base_domain, self.public_port)
    }
}

/// Where an app finds its things: in its box, if it is in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Where it shall listen.
    pub port: u16,
    /// Where on the loopback interface the platform's internal entrance is.
    pub entrance_port: u16,
    /// Its data.
    pub data: PathBuf,
    /// The CA certificate, if there is one.
    pub ca_file: Option<PathBuf>,
}

/// The environment of one generation.
pub(crate) fn of_app(
    around: &Surroundings,
    desired: &Desired,
    inside: &Inside,
    secret: &str,
) -> BTreeMap<OsString, OsString> {
    // Provider refuses the platform's own where they are written.
    let own = desired.env.iter().filter(|(name, _)| !is_platform_variable(name));
    let mut env: BTreeMap<OsString, OsString> =
        own.map(|(name, value)| (name.into(), value.into())).collect();
    let data = inside.data.as_os_str();
    let mut set = |name: &str, value: OsString| drop(env.insert(name.into(), value));
    set("HOST", around.host(&desired.host_name).into());
    set("PORT", inside.port.to_string().into());
    set("INTERNAL_SECRET", secret.into());
    set("NEXUSHUB_DATA", data.into());
    set("NEXUSHUB_ENTRANCE", around.entrance(inside.entrance_port).into());
    set("HOME", data.into());
    set("PATH", around.path.clone().into());
    set("LANG", around.lang.clone().into());
    if let Some(file) = &inside.ca_file {
        set("SSL_CERT_FILE", file.into());
    }
    env
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_app_gets_the_promised_names_and_its_config_displaces_none_of_them() {
        let around =
            Surroundings::new(&Config::default(), "yesterday.localhost", 8443, Path::new("/nonexistent"));
        let mut proto = crate::desired::tests::proto("a");
        let promised =
            ["HOST", "INTERNAL_SECRET", "PORT", "NEXUSHUB_DATA", "NEXUSHUB_ENTRANCE", "PATH", "HOME", "LANG"];
        for name in promised.into_iter().chain(["SSL_CERT_FILE"]) {
            proto.env.insert(name.into(), "mine".into());
        }
        proto.env.insert("DB_NAME".into(), "x.db".into());
        let desired = Desired::from_proto(proto, 10_000).unwrap();
        let inside = Inside { port: 10_001, entrance_port: 443, data: desired.data.clone(), ca_file: None };
        let env = of_app(&around, &desired, &inside, "s3cret");
        let get =
            |name: &str| env.get(OsString::from(name).as_os_str()).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(get("HOST").unwrap(), "hello.yesterday.localhost:8443");
        assert_eq!(get("PORT").unwrap(), "10001");
        assert_eq!(get("INTERNAL_SECRET").unwrap(), "s3cret");
        assert_eq!(get("HOME"), get("NEXUSHUB_DATA"));
        assert_eq!(get("SSL_CERT_FILE"), None);
        assert_eq!(get("NEXUSHUB_ENTRANCE").unwrap(), "internal.yesterday.localhost:443");
        assert_eq!(get("DB_NAME").unwrap(), "x.db");
        assert_eq!(env.len(), promised.len() + 1, "they and its own");
        assert!(!env.values().any(|value| value == "mine"));
    }

    #[test]
    fn an_app_in_a_box_is_told_where_its_things_are_inside() {
        let around = Surroundings::new(&Config::default(), "yesterday.localhost", 8443, Path::new("/ca"));
        let desired = Desired::from_proto(crate::desired::tests::proto("a"), 10_000).unwrap();
        let inside = Inside {
            port: 80,
            entrance_port: 8443,
            data: "/db".into(),
            ca_file: Some("/etc/nexushub/ca.crt".into()),
        };
        let env = of_app(&around, &desired, &inside, "s3cret");
        for (name, value) in [
            ("PORT", "80"),
            ("HOME", "/db"),
            ("NEXUSHUB_DATA", "/db"),
            ("NEXUSHUB_ENTRANCE", "internal.yesterday.localhost:8443"),
            ("SSL_CERT_FILE", "/etc/nexushub/ca.crt"),
        ] {
            assert_eq!(env[OsString::from(name).as_os_str()], value);
        }
    }
}
