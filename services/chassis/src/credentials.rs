//! What a daemon shows to others and what it accepts from them: the files that its parent left in `CREDENTIALS_DIRECTORY`.
//! Only digests of the accepted tokens are here, so a daemon can't pass itself off as one of its callers.

use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use nexushub_launch::{
    Fault,
    secret::{AppKey, digest, from_hex},
};
use subtle::ConstantTimeEq;

/// A caller that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `operator`, or a daemon's name.
    pub name: String,
    rights: Rights,
}

impl Caller {
    /// Whether it may call a method (`package.Service/Method`), or use a facility such as `http`.
    #[must_use]
    pub fn may(&self, method: &str) -> bool {
        match &self.rights {
            Rights::All => true,
            Rights::Listed(methods) => methods.iter().any(|allowed| allowed == method),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rights {
    All,
    Listed(Vec<String>),
}

#[derive(Debug)]
struct Accepted {
    digest: [u8; 32],
    uid: Option<u32>,
    caller: Caller,
}

/// A daemon's credentials.
#[derive(Clone, Default)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    accepted: Vec<Accepted>,
    tokens: HashMap<String, String>,
    app_key: Option<AppKey>,
}

impl Credentials {
    /// Reads the folder.
    ///
    /// # Errors
    /// When the folder or a file can't be read, or `accept` isn't what it should be.
    pub fn load(folder: &Path) -> Result<Self, Fault> {
        let fault = |error: &io::Error| {
            let hint = "start the daemon under nexushub-supervisor or its systemd unit";
            Fault::new(
                "credentials_unreadable",
                format!("could not read the credentials: {error}"),
                folder.display().to_string(),
                hint,
            )
        };
        let accept = fs::read_to_string(folder.join("accept")).map_err(|error| fault(&error))?;
        let accepted = accept.lines().map(accepted).collect::<Option<Vec<_>>>();
        let accepted = accepted
            .ok_or_else(|| fault(&io::Error::new(io::ErrorKind::InvalidData, "`accept` is malformed")))?;
        let tokens = tokens(folder).map_err(|error| fault(&error))?;
        let app_key =
            fs::read_to_string(folder.join("app-key")).ok().and_then(|text| AppKey::from_hex(&text));
        Ok(Self { inner: Arc::new(Inner { accepted, tokens, app_key }) })
    }

    /// Who shows this token, if anyone known; a daemon's token counts only from its own user. Every accepted digest is
    /// compared, each in constant time, so that the answer's time tells nothing.
    #[must_use]
    pub fn verify(&self, token: &str, uid: Option<u32>) -> Option<Caller> {
        let shown = digest(token);
        let mut found = None;
        for accepted in &self.inner.accepted {
            let same = bool::from(accepted.digest.ct_eq(&shown));
            if same && (accepted.uid.is_none() || accepted.uid == uid) {
                found = Some(&accepted.caller);
            }
        }
        found.cloned()
    }

    /// What this daemon shows to `server`.
    #[must_use]
    pub fn token_for(&self, server: &str) -> Option<&str> {
        self.inner.tokens.get(server).map(String::as_str)
    }

    /// The key of the apps' own secrets; only procmgr has it.
    #[must_use]
    pub fn app_key(&self) -> Option<AppKey> {
        self.inner.app_key.clone()
    }

    /// The user ids of the accepted daemons.
    pub(crate) fn uids(&self) -> impl Iterator<Item = u32> {
        self.inner.accepted.iter().filter_map(|accepted| accepted.uid)
    }
}

/// The token that a request shows in `Authorization: Bearer ...`, if it shows just one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn tokens(folder: &Path) -> io::Result<HashMap<String, String>> {
    let mut tokens = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(server) = entry.file_name().to_str().and_then(|name| name.strip_prefix("token.")) {
            tokens.insert(server.to_owned(), fs::read_to_string(entry.path())?.trim().to_owned());
        }
    }
    Ok(tokens)
}

/// `<digest> <caller> <uid or -> <rights>`
fn accepted(line: &str) -> Option<Accepted> {
    let mut words = line.split_whitespace();
    let (digest, name, uid, rights) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let uid = if uid == "-" { None } else { Some(uid.parse().ok()?) };
    let rights = match rights {
        "*" => Rights::All,
        listed => Rights::Listed(listed.split(',').map(str::to_owned).collect()),
    };
    let caller = Caller { name: name.to_owned(), rights };
    words.next().is_none().then_some(())?;
    Some(Accepted { digest: from_hex(digest)?, uid, caller })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_launch::secret::{Secret, credentials};

    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("nexushub-credentials-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_caller_is_known_by_its_token_its_user_and_its_rights() {
        let run = folder("known");
        let secret = Secret::generate().unwrap();
        secret.write_credentials(&run, Some(7)).unwrap();
        let procmgr = Credentials::load(&credentials(&run, "procmgr")).unwrap();
        let proxy = Credentials::load(&credentials(&run, "proxy")).unwrap();
        let token = proxy.token_for("procmgr").unwrap();

        let caller = procmgr.verify(token, Some(7)).unwrap();
        assert_eq!(caller.name, "proxy");
        assert!(caller.may("nexushub.procmgr.v1.ProcmgrService/WatchInstances"));
        assert!(!caller.may("nexushub.procmgr.v1.ProcmgrService/StopAllInstances"));
        assert_eq!(procmgr.verify(token, Some(8)), None, "another user's process");
        assert_eq!(procmgr.verify("", Some(7)), None);
        assert_eq!(proxy.verify(token, Some(7)), None, "another server's token");
        assert!(procmgr.app_key().is_some() && proxy.app_key().is_none());

        let operator = fs::read_to_string(run.join("operator/procmgr")).unwrap();
        assert!(procmgr.verify(&operator, Some(0)).unwrap().may("anything"));
        fs::remove_dir_all(run).unwrap();
    }

    #[test]
    fn a_malformed_accept_file_is_refused_whole() {
        for text in
            ["x", "00 a - *", &format!("{} a x *", "0".repeat(64)), &format!("{} a - * more", "0".repeat(64))]
        {
            assert!(accepted(text).is_none(), "{text:?}");
        }
        let path = folder("malformed");
        fs::write(path.join("accept"), "garbage\n").unwrap();
        let fault = Credentials::load(&path).err().unwrap();
        assert_eq!(fault.code, "credentials_unreadable");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn only_a_bearer_is_a_token() {
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&headers("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers("bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers("Basic abc")), None);
        assert_eq!(bearer(&headers("abc")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
        let mut two = headers("Bearer abc");
        two.append(AUTHORIZATION, "Bearer def".parse().unwrap());
        assert_eq!(bearer(&two), None);
    }
}
