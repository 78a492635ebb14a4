//! `nexushub.toml` in a package's root: what the package says of itself. It is optional, and may ask only for what the platform's
//! configuration grants; what a developer said when the application was created goes before it.
//!
//! ```toml
//! manifest = 1              # the form of this file; there is one so far
//! name = "Shop"             # what the package is called; shown with its releases
//! version = "1.4.0"         # the same
//! driver = "sandbox"        # auto, krun or sandbox
//! static = "dist"           # the folder whose files are served; it becomes static/
//! spa = true                # pages that aren't there are answered with static/index.html
//! [limits]                  # memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes
//! [health]                  # path, interval_ms, timeout_ms, failures, start_deadline_ms
//! [env]                     # further variables
//! ```
//! Here it is judged what a package may ask for. Whether a value can be at all is provider's to say, as it is of every instance.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use nexushub_proto::provider;
use serde::{Deserialize, Serialize};

/// Where it is in a package.
pub(crate) const NAME: &str = "nexushub.toml";
/// The form that this release reads.
const FORM: u32 = 1;
/// Largest file.
const BYTES_MAX: u64 = 64 << 10;
/// Longest name and version, in characters.
const TEXT_MAX: usize = 64;
/// Longest of what is said of a line, in characters.
const SAID_MAX: usize = 300;

/// How the app is to be isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    Auto,
    Krun,
    Sandbox,
    Process,
}

impl From<Driver> for provider::Driver {
    fn from(driver: Driver) -> Self {
        match driver {
            Driver::Auto => Self::Auto,
            Driver::Krun => Self::Krun,
            Driver::Sandbox => Self::Sandbox,
            Driver::Process => Self::Process,
        }
    }
}

/// Bounds on what the app uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    memory_bytes: Option<u64>,
    cpu_percent: Option<u32>,
    processes: Option<u32>,
    open_files: Option<u32>,
    data_bytes: Option<u64>,
    tmp_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_bytes: Option<u64>,
}

/// How the app is asked whether it is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    path: Option<String>,
    interval_ms: Option<u32>,
    timeout_ms: Option<u32>,
    failures: Option<u32>,
    start_deadline_ms: Option<u32>,
}

/// What a package says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Manifest {
    manifest: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    driver: Option<Driver>,
    limits: Limits,
    health: Health,
    env: BTreeMap<String, String>,
    #[serde(rename = "static")]
    folder: Option<PathBuf>,
    pub(crate) spa: bool,
}

/// What the platform's configuration grants to packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grants {
    pub(crate) driver: provider::Driver,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_percent: u32,
    pub(crate) processes: u32,
    pub(crate) open_files: u32,
    pub(crate) data_bytes: u64,
    pub(crate) tmp_bytes: u64,
    pub(crate) log_bytes: u64,
}

impl Grants {
    /// For what was judged before.
    pub(crate) const EVERYTHING: Self = Self {
        driver: provider::Driver::Process,
        memory_bytes: u64::MAX,
        cpu_percent: u32::MAX,
        processes: u32::MAX,
        open_files: u32::MAX,
        data_bytes: u64::MAX,
        tmp_bytes: u64::MAX,
        log_bytes: u64::MAX,
    };

    /// Whether apps run without one.
    pub(crate) fn without_a_box(self) -> bool {
        self.driver == provider::Driver::Process
    }

    /// A box may be asked for by name where the platform takes the best, or takes none; never less than it takes.
    fn driver(self, asked: Driver) -> Result<(), ManifestError> {
        use provider::Driver as Granted;
        let asked = Granted::from(asked);
        let granted = match self.driver {
            Granted::Auto | Granted::Unspecified => asked != Granted::Process,
            Granted::Process => true,
            granted => asked == granted || asked == Granted::Auto,
        };
        if granted {
            return Ok(());
        }
        let why = format!(
            "packages may not choose {}; leave it out, or ask the operator for another debug-api.driver",
            name(asked)
        );
        Err(ManifestError::of_key("driver", why))
    }
}

fn name(driver: provider::Driver) -> &'static str {
    match driver {
        provider::Driver::Unspecified | provider::Driver::Auto => "auto",
        provider::Driver::Krun => "krun",
        provider::Driver::Sandbox => "sandbox",
        provider::Driver::Process => "process",
    }
}

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{NAME}, {place}: {why}")]
pub(crate) struct ManifestError {
    place: String,
    why: String,
}

impl ManifestError {
    /// The value of a key can't be.
    pub(crate) fn of_key(key: &str, why: String) -> Self {
        Self { place: format!("key `{key}`"), why }
    }

    fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let plain = |character: char| if character.is_control() { ' ' } else { character };
        Self {
            place: format!("line {line}"),
            why: error.message().chars().map(plain).take(SAID_MAX).collect(),
        }
    }

    fn whole(why: String) -> Self {
        Self { place: "the file".to_owned(), why }
    }
}

impl Manifest {
    /// What an unpacked package says of itself, if it does.
    pub(crate) fn of_package(folder: &Path, grants: Grants) -> Result<Self, ManifestError> {
        let path = folder.join(NAME);
        if path.is_file() { Self::read(&path, grants) } else { Ok(Self::default()) }
    }

    /// What an unpacked package says of itself that was judged when it came. One that can't be understood any more says nothing; one that
    /// can't be read now may have much to say.
    pub(crate) fn of_judged(folder: &Path) -> io::Result<Self> {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        let mut text = Vec::new();
        let read = File::open(folder.join(NAME)).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
        match read {
            Ok(_) => Ok(Self::parse(&text, Grants::EVERYTHING).unwrap_or_default()),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory | IsADirectory) => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    fn read(path: &Path, grants: Grants) -> Result<Self, ManifestError> {
        let unread = |error| ManifestError::whole(format!("it can't be read: {error}"));
        let bytes = fs::metadata(path).map_err(unread)?.len();
        if bytes > BYTES_MAX {
            return Err(ManifestError::whole(format!("it has {bytes} bytes, more than {BYTES_MAX}")));
        }
        Self::parse(&fs::read(path).map_err(unread)?, grants)
    }

    pub(crate) fn parse(text: &[u8], grants: Grants) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Formed {
            manifest: Option<u32>,
        }
        let text = str::from_utf8(text).map_err(|error| {
            ManifestError::whole(format!("it is not UTF-8 at byte {}", error.valid_up_to()))
        })?;
        let of_toml = |error| ManifestError::of_toml(text, &error);
        let Formed { manifest: form } = toml::from_str(text).map_err(of_toml)?;
        if form.is_some_and(|form| form != FORM) {
            let why = format!("this platform reads form {FORM}; write `manifest = {FORM}`, or leave it out");
            return Err(ManifestError::of_key("manifest", why));
        }
        let manifest: Self = toml::from_str(text).map_err(of_toml)?;
        manifest.judge(grants)?;
        Ok(manifest)
    }

    fn judge(&self, grants: Grants) -> Result<(), ManifestError> {
        for (key, text) in [("name", &self.name), ("version", &self.version)] {
            let fits = |text: &String| {
                (1..=TEXT_MAX).contains(&text.chars().count()) && !text.contains(char::is_control)
            };
            if !text.as_ref().is_none_or(fits) {
                let why = format!("use 1 to {TEXT_MAX} characters and no control characters");
                return Err(ManifestError::of_key(key, why));
            }
        }
        if let Some(folder) = &self.folder {
            let plain = crate::unpack::place(folder.as_os_str().as_encoded_bytes());
            if plain.ok().flatten().as_ref() != Some(folder) {
                let why = "name a folder of the package, such as `dist` or `web/dist`".to_owned();
                return Err(ManifestError::of_key("static", why));
            }
        }
        self.driver.map_or(Ok(()), |driver| grants.driver(driver))?;
        self.limits.judge(grants)
    }

    /// The folder whose files are served, if it says.
    pub(crate) fn served(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// What an instance of the package is given where nobody else said.
    /// What was granted when it was installed and no longer is, it does without.
    pub(crate) fn apply(&self, instance: &mut provider::Instance, grants: Grants) {
        let provider::Asks { env, health, limits, .. } = self.asks(grants).unwrap_or_default();
        let granted = |driver: &Driver| *driver != Driver::Auto && grants.driver(*driver).is_ok();
        if let Some(driver) = self.driver.filter(granted) {
            instance.driver = provider::Driver::from(driver).into();
        }
        (instance.env, instance.health, instance.limits) = (env, health, limits);
    }

    /// What it asks for, if anything, as far as it is granted. Which box an application of the admin app may have is provider's to say.
    pub(crate) fn asks(&self, grants: Grants) -> Option<provider::Asks> {
        let (health, limits) = (self.health.told(), self.limits.within(grants).told());
        let asks = provider::Asks {
            driver: self.driver.map_or(provider::Driver::Unspecified, Into::into).into(),
            env: self.env.clone().into_iter().collect(),
            health: Some(health).filter(|health| *health != provider::Health::default()),
            limits: Some(limits).filter(|limits| *limits != provider::Limits::default()),
        };
        Some(asks).filter(|asks| *asks != provider::Asks::default())
    }
}

impl Limits {
    fn judge(&self, grants: Grants) -> Result<(), ManifestError> {
        let asked = [
            ("memory_bytes", self.memory_bytes, grants.memory_bytes),
            ("cpu_percent", self.cpu_percent.map(u64::from), grants.cpu_percent.into()),
            ("processes", self.processes.map(u64::from), grants.processes.into()),
            ("open_files", self.open_files.map(u64::from), grants.open_files.into()),
            ("data_bytes", self.data_bytes, grants.data_bytes),
            ("tmp_bytes", self.tmp_bytes, grants.tmp_bytes),
            ("log_bytes", self.log_bytes, grants.log_bytes),
        ];
        for (key, value, most) in asked {
            if value.is_some_and(|value| !(1..=most).contains(&value)) {
                let why = format!(
                    "packages may ask for 1 to {most}; use less, or ask the operator for more (debug-api.max_app_{key})"
                );
                return Err(ManifestError::of_key(&format!("limits.{key}"), why));
            }
        }
        Ok(())
    }

    fn within(&self, grants: Grants) -> Self {
        Self {
            memory_bytes: self.memory_bytes.map(|asked| asked.min(grants.memory_bytes)),
            cpu_percent: self.cpu_percent.map(|asked| asked.min(grants.cpu_percent)),
            processes: self.processes.map(|asked| asked.min(grants.processes)),
            open_files: self.open_files.map(|asked| asked.min(grants.open_files)),
            data_bytes: self.data_bytes.map(|asked| asked.min(grants.data_bytes)),
            tmp_bytes: self.tmp_bytes.map(|asked| asked.min(grants.tmp_bytes)),
            log_bytes: self.log_bytes.map(|asked| asked.min(grants.log_bytes)),
        }
    }

    fn told(&self) -> provider::Limits {
        provider::Limits {
            memory_bytes: self.memory_bytes.unwrap_or(0),
            cpu_percent: self.cpu_percent.unwrap_or(0),
            processes: self.processes.unwrap_or(0),
            open_files: self.open_files.unwrap_or(0),
            data_bytes: self.data_bytes.unwrap_or(0),
            tmp_bytes: self.tmp_bytes.unwrap_or(0),
            log_bytes: self.log_bytes.unwrap_or(0),
        }
    }
}

impl Health {
    fn told(&self) -> provider::Health {
        provider::Health {
            path: self.path.clone().unwrap_or_default(),
            interval_ms: self.interval_ms.unwrap_or(0),
            timeout_ms: self.timeout_ms.unwrap_or(0),
            failures: self.failures.unwrap_or(0),
            start_deadline_ms: self.start_deadline_ms.unwrap_or(0),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn grants() -> Grants {
        crate::config::Config::default().grants()
    }

    fn refusal(text: &str) -> String {
        Manifest::parse(text.as_bytes(), grants()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_granted_no_more_is_given_no_more() {
        let text =
            "manifest = 1\ndriver = \"sandbox\"\nlimits = { memory_bytes = 16777216, processes = 7 }\n";
        let manifest = Manifest::parse(text.as_bytes(), grants()).unwrap();
        let mut given = provider::Instance::default();
        manifest.apply(&mut given, Grants { memory_bytes: 1 << 20, ..grants() });
        let limits = given.limits.unwrap();
        assert_eq!((limits.memory_bytes, limits.processes), (1 << 20, 7));
    }

    #[test]
    fn an_instance_is_given_what_the_package_asks_for_and_nothing_else_changes() {
        let text = r#"
            manifest = 1
            name = "Shop"
            version = "1.4.0"
            driver = "sandbox"
            limits = { memory_bytes = 16777216, cpu_percent = 50 }
            health = { path = "/healthz", failures = 5 }
            env = { MODE = "demo" }
        "#;
        let manifest = Manifest::parse(text.as_bytes(), grants()).unwrap();
        let before = provider::Instance { host_name: "shop".into(), ..Default::default() };
        let mut given = before.clone();
        manifest.apply(&mut given, grants());
        assert_eq!(given.driver(), provider::Driver::Sandbox);
        assert_eq!(given.env["MODE"], "demo");
        assert_eq!(
            given.limits.unwrap(),
            provider::Limits { memory_bytes: 16 << 20, cpu_percent: 50, ..Default::default() }
        );
        let health = given.health.clone().unwrap();
        assert_eq!((health.path.as_str(), health.failures, health.interval_ms), ("/healthz", 5, 0));
        let bare =
            provider::Instance { driver: 0, env: Default::default(), limits: None, health: None, ..given };
        assert_eq!(bare, before);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_or_key() {
        let said = refusal("name = \"a\"\n\nhost_name = \"x\"\n");
        assert!(said.starts_with("nexushub.toml, line 3: unknown field `host_name`"), "{said}");
        assert!(
            refusal("[limits]\nmemory = 5\n").starts_with("nexushub.toml, line 2: unknown field `memory`")
        );
        assert!(refusal("name = \"a\"\nname = \"b\"\n").starts_with("nexushub.toml, line 2: duplicate key"));
        assert!(refusal("a = [").starts_with("nexushub.toml, line 1: "));
        assert!(refusal("spa = 3").contains("expected a boolean"));
        let said = refusal("manifest = 2\nwhat_is_new = true\n");
        assert!(said.starts_with("nexushub.toml, key `manifest`: this platform reads form 1"), "{said}");
        for text in ["name = \"\"", "version = \"a\\nb\"", &format!("name = \"{}\"", "x".repeat(65))] {
            assert!(refusal(text).contains("use 1 to 64 characters"), "{text}");
        }
        for folder in ["/etc", "../x", "a/../b", "", ".", "a\\\\b"] {
            assert!(refusal(&format!("static = \"{folder}\"")).contains("key `static`"), "{folder}");
        }
        let error = Manifest::parse(b"name = \"\xff\"", grants()).unwrap_err();
        assert_eq!(error.to_string(), "nexushub.toml, the file: it is not UTF-8 at byte 8");
        assert!(refusal(&"[".repeat(60_000)).starts_with("nexushub.toml, line "));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, "#".repeat(65_536)).unwrap();
        assert!(Manifest::read(&path, grants()).is_ok());
        fs::write(&path, "#".repeat(65_537)).unwrap();
        let said = Manifest::read(&path, grants()).unwrap_err().to_string();
        assert_eq!(said, "nexushub.toml, the file: it has 65537 bytes, more than 65536");
    }

    #[test]
    fn no_limit_can_be_widened() {
        let granted = grants();
        for (key, most) in [
            ("memory_bytes", granted.memory_bytes),
            ("cpu_percent", granted.cpu_percent.into()),
            ("processes", granted.processes.into()),
            ("open_files", granted.open_files.into()),
            ("data_bytes", granted.data_bytes),
            ("tmp_bytes", granted.tmp_bytes),
            ("log_bytes", granted.log_bytes),
        ] {
            let asks = |value: u64| format!("[limits]\n{key} = {value}\n");
            assert!(Manifest::parse(asks(most).as_bytes(), granted).is_ok(), "{key}");
            for beyond in [most + 1, 0] {
                let said = refusal(&asks(beyond));
                assert!(
                    said.contains(&format!("key `limits.{key}`: packages may ask for 1 to {most}")),
                    "{said}"
                );
                assert!(said.ends_with(&format!("(debug-api.max_app_{key})")), "{said}");
            }
        }
    }

    /// The version before refuses keys that it doesn't know.
    #[test]
    fn of_a_bound_on_the_log_nothing_is_written_where_there_is_none() {
        let written = |text: &str| {
            let manifest = Manifest::parse(text.as_bytes(), grants()).unwrap();
            let written = serde_json::to_value(&manifest).unwrap();
            assert_eq!(serde_json::from_value::<Manifest>(written.clone()).unwrap(), manifest);
            written["limits"].get("log_bytes").cloned()
        };
        assert_eq!(written("limits = { memory_bytes = 16777216 }"), None);
        assert_eq!(written("limits = { log_bytes = 1048576 }"), Some(1_048_576.into()));
    }

    #[test]
    fn a_box_can_be_chosen_and_never_left() {
        let may = |driver, asked: &str| {
            let grants = Grants { driver, ..grants() };
            Manifest::parse(format!("driver = \"{asked}\"").as_bytes(), grants).is_ok()
        };
        use provider::Driver as Granted;
        let all = ["auto", "krun", "sandbox", "process"];
        let taken = |driver| all.map(|asked| may(driver, asked));
        assert_eq!(taken(Granted::Auto), [true, true, true, false]);
        assert_eq!(taken(Granted::Krun), [true, true, false, false]);
        assert_eq!(taken(Granted::Sandbox), [true, false, true, false]);
        assert_eq!(taken(Granted::Process), [true; 4]);
        assert!(refusal("driver = \"process\"").contains("may not choose process; leave it out"));
    }
}
