//! Who may say what to whom. From one start-up secret, which only the supervisor holds, every token is derived:
//! `HKDF-SHA256(secret, caller, server)`. A daemon gets the tokens that it sends and the digests of those that it accepts, so
//! it can verify its callers and impersonate none of them.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use crate::{clock, daemon::DAEMONS, durable};

/// Name of the operators' caller: people and their tools.
pub const OPERATOR: &str = "operator";

/// Methods of one service, each by its whole name.
macro_rules! methods {
    ($service:literal, $first:literal $(, $more:literal)*) => {
        concat!("nexushub.", $service, "/", $first $(, ",nexushub.", $service, "/", $more)*)
    };
}

/// What each daemon may ask of another: (caller, server, methods). `http` is debug-api's plain-HTTP socket, and the one by which
/// daemons reach apps through the proxy. Operators may ask everything of everyone; health and reflection are open to every known
/// caller.
#[rustfmt::skip]
pub const GRANTS: [(&str, &str, &str); 8] = [
    ("procmgr", "provider", methods!("provider.v1.ProviderService", "WatchDesired")),
    ("debug-api", "provider", methods!("provider.v1.ProviderService", "PutInstance", "RemoveInstance", "ListInstances",
        "SetRelease", "RevertRelease", "ListReleases", "ConfirmRemovals")),
    ("debug-api", "procmgr", methods!("procmgr.v1.ProcmgrService", "WatchInstances", "ListInstances", "GetInstance", "ReadLog",
        "RestartInstance", "PauseInstance", "ResumeInstance")),
    ("debug-api", "proxy", concat!(methods!("proxy.v1.ProxyService", "GetMetrics"), ",http")),
    ("proxy", "procmgr", methods!("procmgr.v1.ProcmgrService", "WatchInstances", "ReleaseGeneration", "ReportIdle",
        "WakeInstance")),
    ("proxy", "debug-api", "http"),
    ("provider", "proxy", "http"),
    ("provider", "procmgr", methods!("procmgr.v1.ProcmgrService", "WatchInstances")),
];

/// 256 bits from the kernel, made once a start of the platform.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no randomness.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The one kept in a file by a supervisor that ran earlier in this boot, or else a new one, which is kept there. A file
    /// from another boot, or one that isn't whole, counts as none.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn kept(path: &Path) -> io::Result<Self> {
        let boot = clock::boot_id()?;
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        if let Some(bytes) = text.trim().strip_prefix(&boot).and_then(|hex| from_hex(hex.trim())) {
            return Ok(Self(bytes));
        }
        let secret = Self::generate()?;
        durable::write(path, format!("{boot} {}\n", hex(&secret.0)).as_bytes(), 0o600)?;
        Ok(secret)
    }

    /// What `caller` shows to `server`.
    #[must_use]
    pub fn token(&self, caller: &str, server: &str) -> String {
        hex(&derive(&self.0, &["nexushub token", caller, server]))
    }

    /// The key of the apps' own secrets.
    #[must_use]
    pub fn app_key(&self) -> AppKey {
        AppKey(derive(&self.0, &["nexushub app key"]))
    }

    /// Writes every daemon's credentials below `run`, and the operators' tokens. `uid` is whose processes may show the
    /// daemons' tokens; none = any accepted peer's.
    ///
    /// # Errors
    /// When a folder or file can't be written.
    pub fn write_credentials(&self, run: &Path, uid: Option<u32>) -> io::Result<()> {
        let operators = folder(run.join("operator"))?;
        for daemon in DAEMONS {
            let own = folder(credentials(run, daemon.name))?;
            write(&own.join("accept"), &self.accepted_by(daemon.name, uid))?;
            for (_, server, _) in GRANTS.iter().filter(|(caller, ..)| *caller == daemon.name) {
                write(&own.join(format!("token.{server}")), &self.token(daemon.name, server))?;
            }
            write(&operators.join(daemon.name), &self.token(OPERATOR, daemon.name))?;
        }
        write(&credentials(run, "procmgr").join("app-key"), &hex(&self.app_key().0))
    }

    /// One line a caller: digest, name, uid or `-`, rights.
    fn accepted_by(&self, server: &str, uid: Option<u32>) -> String {
        let uid = uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
        let line = |caller: &str, uid: &str, rights: &str| {
            format!("{} {caller} {uid} {rights}\n", hex(&digest(&self.token(caller, server))))
        };
        let daemons = GRANTS.iter().filter(|(_, to, _)| *to == server);
        daemons.map(|(caller, _, rights)| line(caller, &uid, rights)).collect::<String>()
            + &line(OPERATOR, "-", "*")
    }
}

/// Where a daemon's credentials lie.
#[must_use]
pub fn credentials(run: &Path, daemon: &str) -> PathBuf {
    run.join("credentials").join(daemon)
}

/// The key from which an app's own secret is derived; procmgr holds it, and nobody else.
#[derive(Clone)]
pub struct AppKey([u8; 32]);

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey(..)")
    }
}

impl AppKey {
    /// Reads the credential `app-key`; none when it isn't 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text.trim()).map(Self)
    }

    /// The secret of one app instance, in the shape of a uuid, as apps expect it.
    #[must_use]
    pub fn app_secret(&self, instance: &str) -> String {
        let bytes = derive(&self.0, &["nexushub app secret", instance]);
        let half = *bytes.first_chunk::<16>().expect("32 bytes hold 16");
        uuid::Builder::from_random_bytes(half).into_uuid().to_string()
    }
}

/// SHA-256 of a token's text: what a server keeps of it.
#[must_use]
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64 hexadecimal digits; none for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// HKDF with the parts of the purpose kept apart by their lengths.
fn derive(key: &[u8; 32], purpose: &[&str]) -> [u8; 32] {
    let info: Vec<u8> = purpose
        .iter()
        .flat_map(|part| [&[u8::try_from(part.len()).unwrap_or(u8::MAX)], part.as_bytes()].concat())
        .collect();
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(None, key).expand(&info, &mut out).expect("32 bytes are within HKDF's limit");
    out
}

fn folder(path: PathBuf) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    Ok(path)
}

/// Leaves a file alone that says so already: a platform must come back on a full disk, too.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    durable::write(path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ONE: Secret = Secret([1; 32]);

    #[test]
    fn every_pair_of_caller_and_server_has_a_token_of_its_own() {
        let mut tokens: Vec<_> =
            ["a", "b", "ab", ""].iter().flat_map(|c| ["a", "b", "bb", ""].map(|s| ONE.token(c, s))).collect();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 16);
        assert_ne!(ONE.token("a", "b"), Secret([2; 32]).token("a", "b"));
    }

    #[test]
    fn a_server_keeps_digests_and_never_a_token() {
        let accepted = ONE.accepted_by("procmgr", Some(7));
        assert!(!accepted.contains(&ONE.token("proxy", "procmgr")));
        let line = accepted.lines().find(|line| line.contains(" proxy ")).unwrap();
        assert!(line.starts_with(&hex(&digest(&ONE.token("proxy", "procmgr")))));
        assert!(line.contains(" 7 nexushub.procmgr.v1.ProcmgrService/WatchInstances"));
        assert!(accepted.lines().any(|line| line.ends_with(" operator - *")));
    }

    #[test]
    fn an_app_secret_looks_like_a_uuid_and_is_the_instances_own() {
        let key = AppKey::from_hex(&hex(&ONE.app_key().0)).unwrap();
        assert!(uuid::Uuid::parse_str(&key.app_secret("a")).is_ok());
        assert_ne!(key.app_secret("a"), key.app_secret("b"));
        assert!(AppKey::from_hex("xyz").is_none());
    }

    #[test]
    fn a_kept_secret_is_the_same_within_a_boot_and_new_after_a_torn_file() {
        let path = std::env::temp_dir().join(format!("nexushub-secret-{}", std::process::id()));
        let first = Secret::kept(&path).unwrap();
        assert_eq!(Secret::kept(&path).unwrap().0, first.0);
        fs::write(&path, "another-boot 00").unwrap();
        assert_ne!(Secret::kept(&path).unwrap().0, first.0);
        fs::remove_file(path).unwrap();
    }
}
