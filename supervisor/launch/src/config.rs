//! The configuration file: found, read, overlaid with its profile, and handed out table by table. Whoever owns a table judges
//! it; an error names file, line, key and what to do.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use crate::{Fault, fault::EXIT_USAGE, handoff::Handoff};

/// Names under which the file is looked for in each folder on the way up, with the depth of the project root above it.
const NAMES: [(&str, usize); 2] = [("nexushub.toml", 0), ("dist/config/nexushub.toml", 2)];
/// Tables that the file may have, besides `profile`.
const TABLES: [&str; 8] =
    ["platform", "rpc", "supervisor", "provider", "procmgr", "proxy", "debug-api", "telemetry"];
/// Values of `profile`.
const PROFILES: [&str; 3] = ["development", "staging", "production"];
/// Variable by which a parent that hands over a copy of the file says where the project is.
pub const ROOT: &str = "NEXUSHUB_ROOT";
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The table `[platform]`: what every daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Platform {
    /// Which `[profile.*]` tables are laid over the file: development, staging or production.
    pub profile: String,
    /// Every app answers at a name below it.
    pub base_domain: String,
    /// Address of the HTTPS listener.
    pub listen: SocketAddr,
    /// Address of a plain HTTP listener that sends everybody to the other one; empty = there is none.
    pub redirect_listen: String,
    /// Address where the proxy's metrics are told by plain HTTP, to whoever asks; empty = nowhere.
    pub metrics_listen: String,
    /// Least level that is logged: error, warn, info, debug or trace. Empty = debug in development, else info.
    pub log_level: String,
    /// `$RUN`; empty = `/run/nexushub`.
    pub run_dir: PathBuf,
    /// `$STATE`; empty = `/var/lib/nexushub`.
    pub state_dir: PathBuf,
    /// Further user ids whose processes may connect to the daemons' sockets, besides root and the daemons' own.
    pub peers: Vec<u32>,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            profile: "development".to_owned(),
            base_domain: "yesterday.localhost".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            redirect_listen: String::new(),
            metrics_listen: String::new(),
            log_level: String::new(),
            run_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
            peers: Vec::new(),
        }
    }
}

impl Platform {
    /// The level in force.
    #[must_use]
    pub fn level(&self) -> &str {
        match (self.log_level.as_str(), self.profile.as_str()) {
            ("", "development") => "debug",
            ("", _) => "info",
            (level, _) => level,
        }
    }

    /// The proxy's listeners besides that for HTTPS, by name, each with its address if there is to be one.
    #[must_use]
    pub fn extra_listeners(&self) -> [(&'static str, Option<SocketAddr>); 2] {
        [("http", self.redirect_listen.parse().ok()), ("metrics", self.metrics_listen.parse().ok())]
    }

    fn judge(&self) -> Result<(), (&'static str, String, &'static str)> {
        if !PROFILES.contains(&self.profile.as_str()) {
            let what = format!("unknown profile `{}`", self.profile);
            return Err(("platform.profile", what, "development, staging or production"));
        }
        if !["", "error", "warn", "info", "debug", "trace"].contains(&self.log_level.as_str()) {
            let what = format!("unknown level `{}`", self.log_level);
            return Err(("platform.log_level", what, "error, warn, info, debug or trace"));
        }
        for (key, address, sample) in [
            ("platform.redirect_listen", &self.redirect_listen, "such as \"0.0.0.0:80\", or \"\" for none"),
            ("platform.metrics_listen", &self.metrics_listen, "such as \"127.0.0.1:9090\", or \"\" for none"),
        ] {
            if !address.is_empty() && address.parse::<SocketAddr>().is_err() {
                return Err((key, format!("no address with a port: `{address}`"), sample));
            }
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if self.base_domain.len() > 200 || !self.base_domain.split('.').all(label) {
            let what = format!("not a domain name: `{}`", self.base_domain);
            return Err(("platform.base_domain", what, "use lower-case labels joined by dots"));
        }
        Ok(())
    }
}

/// A configuration file, or the defaults where there is none.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file; none = defaults.
    pub path: Option<PathBuf>,
    /// The project root: relative paths in the file start here, and so do the daemons.
    pub root: PathBuf,
    text: String,
}

impl Config {
    /// Reads the file given, or the first one found in `from` and the folders above it; with none, the defaults hold and `from`
    /// is the root. The whole file's shape is judged, and the table `[platform]`; other tables are their owners' to judge.
    ///
    /// # Errors
    /// An unreadable or malformed file, or an unknown table or profile.
    pub fn load(path: Option<&Path>, from: &Path) -> Result<Self, ConfigError> {
        let path = path.map(Path::to_owned).or_else(|| find(from));
        let Some(path) = path else {
            return Ok(Self { path: None, root: from.to_owned(), text: String::new() });
        };
        let path = std::path::absolute(&path).map_err(|error| ConfigError::io(&path, &error))?;
        let text = read(&path).map_err(|error| ConfigError::io(&path, &error))?;
        let root = std::env::var_os(ROOT).map_or_else(|| root_of(&path), PathBuf::from);
        Self { root, path: None, text: String::new() }.with(path, text)
    }

    /// The same project, if its file were this one.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with(self, path: PathBuf, text: String) -> Result<Self, ConfigError> {
        let config = Self { path: Some(path), text, ..self };
        config.platform().map(|_| config)
    }

    /// The table `[platform]`, with its profile laid over it.
    ///
    /// # Errors
    /// As [`Config::section`], or a value that can't be.
    pub fn platform(&self) -> Result<Platform, ConfigError> {
        let platform: Platform = self.section("platform")?;
        platform.judge().map_err(|(key, message, hint)| self.error(None, key, message, hint))?;
        Ok(platform)
    }

    /// One table, with its profile laid over it; the type's default where the file has none.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong type: with line and hint.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, ConfigError> {
        let mut document = DeTable::parse(&self.text).map_err(|error| self.toml(&error, ""))?.into_inner();
        self.known(&document, "", true)?;
        let profile = document.get("platform").and_then(|table| table.get_ref().get("profile"));
        let profile = profile.and_then(|value| value.get_ref().as_str()).unwrap_or("development").to_owned();
        let overlay = self.overlay(&mut document, &profile, name)?;
        let table = match (document.remove(name), overlay) {
            (None, None) => return Ok(T::default()),
            (Some(base), None) => base,
            (None, Some(over)) => over,
            (Some(base), Some(over)) => lay_over(base, over),
        };
        let span = table.span();
        let DeValue::Table(table) = table.into_inner() else {
            return Err(self.error(
                Some(span.start),
                name,
                format!("`{name}` is not a table"),
                "write [table] and its keys below it",
            ));
        };
        T::deserialize(Deserializer::from(Spanned::new(span, table))).map_err(|error| self.toml(&error, name))
    }

    /// The file as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What these tables say, with their profile, as one text: differs when their content does, whatever the layout.
    #[must_use]
    pub fn fingerprint(&self, tables: &[&str]) -> String {
        format!(
            "{:?}",
            tables.iter().map(|table| self.section::<toml::Table>(table).ok()).collect::<Vec<_>>()
        )
    }

    /// A path of the file: absolute as it is, relative from the project root.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// `$RUN` and `$STATE`: what the parent said, else what the file says, else the system's own.
    ///
    /// # Errors
    /// As [`Config::platform`].
    pub fn folders(&self, handoff: &Handoff) -> Result<(PathBuf, PathBuf), ConfigError> {
        let platform = self.platform()?;
        let pick = |given: &Option<PathBuf>, configured: &Path, system: &str| match given {
            Some(given) => given.clone(),
            None if configured.as_os_str().is_empty() => PathBuf::from(system),
            None => self.resolve(configured),
        };
        let run = pick(&handoff.run, &platform.run_dir, "/run/nexushub");
        Ok((run, pick(&handoff.state, &platform.state_dir, "/var/lib/nexushub")))
    }

    fn known(&self, table: &DeTable<'_>, prefix: &str, profiles: bool) -> Result<(), ConfigError> {
        let stranger = table.keys().find(|key| {
            let key: &str = key.get_ref();
            !(TABLES.contains(&key) || profiles && key == "profile")
        });
        stranger.map_or(Ok(()), |key| {
            let hint = format!("known tables: {}, profile", TABLES.join(", "));
            Err(self.error(
                Some(key.span().start),
                &format!("{prefix}{}", key.get_ref()),
                "unknown table".to_owned(),
                &hint,
            ))
        })
    }

    /// `[profile.<name>.<table>]`, after a look at the names of all profiles and their tables.
    fn overlay<'t>(
        &self,
        document: &mut DeTable<'t>,
        profile: &str,
        name: &str,
    ) -> Result<Option<Spanned<DeValue<'t>>>, ConfigError> {
        let Some(profiles) = document.remove("profile") else { return Ok(None) };
        let at = profiles.span().start;
        let DeValue::Table(mut profiles) = profiles.into_inner() else {
            return Err(self.error(
                Some(at),
                "profile",
                "`profile` is not a table".to_owned(),
                "the one in force is platform.profile",
            ));
        };
        for (key, value) in &profiles {
            if !PROFILES.contains(&key.get_ref().as_ref()) {
                let key_name = format!("profile.{}", key.get_ref());
                return Err(self.error(
                    Some(key.span().start),
                    &key_name,
                    "unknown profile".to_owned(),
                    "development, staging or production",
                ));
            }
            if let Some(tables) = value.get_ref().as_table() {
                self.known(tables, &format!("profile.{}.", key.get_ref()), false)?;
            }
        }
        let chosen = profiles.remove(profile).map(Spanned::into_inner);
        let Some(DeValue::Table(mut tables)) = chosen else { return Ok(None) };
        Ok(tables.remove(name))
    }

    fn toml(&self, error: &toml::de::Error, table: &str) -> ConfigError {
        let mut lines = error.message().lines();
        let message = lines.next().unwrap_or("malformed").to_owned();
        let key = key_in(&message).map_or_else(|| table.to_owned(), |key| format!("{table}.{key}"));
        self.error(
            error.span().map(|span| span.start),
            &key,
            message,
            "see dist/config/nexushub.toml for every key",
        )
    }

    fn error(&self, at: Option<usize>, key: &str, message: String, hint: &str) -> ConfigError {
        let line = at.map(|at| {
            1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
        });
        let file = self.path.clone().unwrap_or_default();
        ConfigError { file, line, key: key.to_owned(), message, hint: hint.to_owned() }
    }
}

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1, where known.
    pub line: Option<usize>,
    /// The key or table.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl ConfigError {
    fn io(path: &Path, error: &io::Error) -> Self {
        let message = format!("could not read the configuration: {error}");
        let hint = "check the path and its permissions".to_owned();
        Self { file: path.to_owned(), line: None, key: String::new(), message, hint }
    }

    /// File, line and key, as far as there are any.
    fn place(&self) -> String {
        let line = self.line.map_or_else(String::new, |line| format!(":{line}"));
        format!("{}{line}: {}", self.file.display(), self.key).trim_end_matches(": ").to_owned()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place(), self.message, self.hint)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        let object = error.place();
        Fault { exit: EXIT_USAGE, ..Fault::new("config_invalid", error.message, object, error.hint) }
    }
}

fn find(from: &Path) -> Option<PathBuf> {
    let from = std::path::absolute(from).ok()?;
    from.ancestors().flat_map(|folder| NAMES.map(|(name, _)| folder.join(name))).find(|path| path.is_file())
}

fn root_of(path: &Path) -> PathBuf {
    let depth = NAMES.iter().rev().find(|(name, _)| path.ends_with(name)).map_or(0, |(_, depth)| *depth);
    path.ancestors().nth(depth + 1).unwrap_or(Path::new("/")).to_owned()
}

fn read(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    if !file.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if file.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

/// The upper table's values win; tables within are laid over each other, everything else is replaced.
fn lay_over<'t>(base: Spanned<DeValue<'t>>, over: Spanned<DeValue<'t>>) -> Spanned<DeValue<'t>> {
    let span = base.span();
    match (base.into_inner(), over) {
        (DeValue::Table(mut base), over) if over.get_ref().is_table() => {
            let DeValue::Table(over) = over.into_inner() else {
                return Spanned::new(span, DeValue::Table(base));
            };
            for (key, value) in over {
                let merged = match base.remove(&key) {
                    Some(below) => lay_over(below, value),
                    None => value,
                };
                base.insert(key, merged);
            }
            Spanned::new(span, DeValue::Table(base))
        }
        (_, over) => over,
    }
}

/// The key that an error message of the parser quotes.
fn key_in(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        a: u32,
        b: String,
    }

    fn config(text: &str) -> Config {
        Config { path: Some("/p/nexushub.toml".into()), root: "/p".into(), text: text.to_owned() }
    }

    #[test]
    fn a_file_that_is_not_there_is_named_without_a_key() {
        let error = Config::load(Some(Path::new("/nowhere/x.toml")), Path::new("/")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/x.toml: could not read"), "{error}");
        assert_eq!(Fault::from(error).object, "/nowhere/x.toml");
    }

    #[test]
    fn a_profile_is_laid_over_the_file_key_by_key() {
        let text = "[platform]\nprofile='production'\n[proxy]\na=1\nb='x'\n[profile.production.proxy]\na=2\n[profile.staging.proxy]\na=3\n";
        assert_eq!(config(text).section::<Sample>("proxy").unwrap(), Sample { a: 2, b: "x".into() });
        assert_eq!(config(text).platform().unwrap().level(), "info");
        assert_eq!(config("").section::<Sample>("proxy").unwrap(), Sample::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = config("[proxy]\na=1\nc=2\n").section::<Sample>("proxy").unwrap_err();
        assert_eq!((error.line, error.key.as_str()), (Some(3), "proxy.c"), "{error}");
        let error = config("[platform]\nprofile='production'\n[profile.production.proxy]\nc=2\n")
            .section::<Sample>("proxy")
            .unwrap_err();
        assert_eq!((error.line, error.key.as_str()), (Some(4), "proxy.c"), "{error}");
    }

    #[test]
    fn strangers_are_refused_at_every_level() {
        for (text, line) in [
            ("[prxy]\n", 1),
            ("x=1\n", 1),
            ("\n[profile.prod.proxy]\n", 2),
            ("[profile.production.prxy]\n", 1),
            ("profile=1\n", 1),
            ("[platform]\nlisten='nowhere'\n", 2),
            ("[platform\n", 1),
            ("proxy=3\n", 1),
        ] {
            let config = config(text);
            let error = config.platform().and_then(|_| config.section::<Sample>("proxy")).unwrap_err();
            assert_eq!(error.line, Some(line), "{text:?}: {error}");
        }
        for text in [
            "[platform]\nprofile='x'\n",
            "[platform]\nbase_domain='A b'\n",
            "[platform]\nlog_level='loud'\n",
            "[platform]\nredirect_listen='80'\n",
            "[platform]\nmetrics_listen='localhost:9090'\n",
        ] {
            assert!(config(text).platform().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_device_is_no_configuration_and_is_not_read() {
        let error = Config::load(Some(Path::new("/dev/zero")), Path::new("/")).unwrap_err();
        assert!(error.message.contains("not a regular file"), "{error}");
    }

    #[test]
    fn the_project_root_is_where_the_file_was_found() {
        assert_eq!(root_of(Path::new("/a/b/nexushub.toml")), Path::new("/a/b"));
        assert_eq!(root_of(Path::new("/a/dist/config/nexushub.toml")), Path::new("/a"));
        assert_eq!(root_of(Path::new("/a/other.toml")), Path::new("/a"));
    }
}
