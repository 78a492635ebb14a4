//! The environment of an app: what the platform promises and what its own configuration lists, nothing else - in
//! particular nothing of procmgr's own. Configured names never displace the platform's.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{config::Config, desired::Desired};

/// Names that configuration can't set; the provider refuses them where they are written (`typed.rs` there).
pub(crate) const RESERVED: [&str; 8] =
    ["HOST", "INTERNAL_SECRET", "PORT", "SSL_CERT_FILE", "NEXUSHUB_DATA", "PATH", "HOME", "LANG"];

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

    /// The public authority of an instance.
    pub(crate) fn host(&self, relative: &str) -> String {
        if relative.is_empty() {
            return format!("{}:{}", self.base_domain, self.public_port);
        }
        format!("{relative}.{}:{}", self.base_domain, self.public_port)
    }
}

/// The environment of one generation. `port` is where the app shall listen.
pub(crate) fn of_app(
    around: &Surroundings,
    desired: &Desired,
    port: u16,
    secret: &str,
) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> =
        desired.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    for name in RESERVED {
        env.remove(OsString::from(name).as_os_str());
    }
    let data = desired.data.as_os_str();
    let mut set = |name: &str, value: OsString| drop(env.insert(name.into(), value));
    set("HOST", around.host(&desired.host_name).into());
    set("PORT", port.to_string().into());
    set("INTERNAL_SECRET", secret.into());
    set("NEXUSHUB_DATA", data.into());
    set("HOME", data.into());
    set("PATH", around.path.clone().into());
    set("LANG", around.lang.clone().into());
    if let Some(file) = &around.ca_file {
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
        for name in RESERVED {
            proto.env.insert(name.into(), "mine".into());
        }
        proto.env.insert("DB_NAME".into(), "x.db".into());
        let desired = Desired::from_proto(proto, 10_000).unwrap();
        let env = of_app(&around, &desired, 10_001, "s3cret");
        let get =
            |name: &str| env.get(OsString::from(name).as_os_str()).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(get("HOST").unwrap(), "hello.yesterday.localhost:8443");
        assert_eq!(get("PORT").unwrap(), "10001");
        assert_eq!(get("INTERNAL_SECRET").unwrap(), "s3cret");
        assert_eq!(get("HOME"), get("NEXUSHUB_DATA"));
        assert_eq!(get("SSL_CERT_FILE"), None);
        assert_eq!(get("DB_NAME").unwrap(), "x.db");
        assert_eq!(env.len(), RESERVED.len());
        assert!(!env.values().any(|value| value == "mine"));
    }
}
