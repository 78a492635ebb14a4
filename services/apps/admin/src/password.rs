//! Passwords: Argon2id as OWASP has it (19 MiB, two passes), hashed beside the requests and a few at a time, so that a flood of
//! sign-ins takes no more memory and no more cores than that.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash,
};
use nexushub_applib::Refusal;
use tokio::{sync::Semaphore, task};

/// KiB of memory and passes of one hash.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Hashes at once; the rest wait.
const AT_ONCE: usize = 2;
/// Characters of a password at least, bytes at most.
const LEAST: usize = 12;
const MOST: usize = 1024;
/// Different characters in it at least.
const VARIETY: usize = 5;
/// What everybody tries first, in any case and with any digits behind.
const COMMON: [&str; 12] = [
    "password",
    "passwort",
    "administrator",
    "qwertyuiop",
    "qwertzuiop",
    "letmein",
    "welcome",
    "iloveyou",
    "nexushub",
    "yesterday",
    "changeme",
    "abcdefghijkl",
];

/// Hashes and verifies.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    /// What a password for nobody is compared with, so that it takes as long.
    nobody: Arc<str>,
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).expect("these are valid parameters");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The hash of a password, with a salt of its own, as a PHC string.
pub(crate) fn hash(password: &str) -> Result<String, Refusal> {
    let hashed = argon2().hash_password(password.as_bytes()).map_err(|error| {
        eprintln!("a password could not be hashed: {error}");
        Refusal::away("this password could not be hashed")
    })?;
    Ok(hashed.to_string())
}

fn matches(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Whether this is the hash of a password, as [`hash`] makes them.
pub(crate) fn is_hash(text: &str) -> bool {
    text.starts_with("$argon2id$") && PasswordHash::new(text).is_ok_and(|hash| hash.hash.is_some())
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, Refusal> {
        let nobody = hash("nobody has this password")?;
        Ok(Self { turns: Arc::new(Semaphore::new(AT_ONCE)), nobody: nobody.into() })
    }

    /// Whether the password is the one that was hashed; for nobody's it takes as long to say no.
    pub(crate) async fn verify(&self, hash: Option<String>, password: String) -> Result<bool, Refusal> {
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.nobody.to_string()));
        Ok(self.turn(move || matches(&hash, &password)).await? && known)
    }

    /// The hash of a password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Refusal> {
        self.turn(move || hash(&password)).await?
    }

    async fn turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let broken = |_| Refusal::away("passwords can't be checked just now");
        let permit = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| Refusal::away("the app is stopping"))?;
        let work = task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        work.await.map_err(broken)
    }
}

/// Whether a password will do for a user.
pub(crate) fn judge(password: &str, user: &str) -> Result<(), Refusal> {
    let lower = password.to_lowercase();
    let letters = lower.trim_end_matches(|char: char| !char.is_alphabetic());
    let mut different: Vec<char> = lower.chars().collect();
    different.sort_unstable();
    different.dedup();
    let why = if password.chars().count() < LEAST {
        "a password has at least 12 characters; a few words are easier to keep in mind than signs"
    } else if password.len() > MOST {
        "a password has at most 1024 bytes"
    } else if different.len() < VARIETY {
        "this password repeats itself too much"
    } else if COMMON.contains(&letters) || COMMON.iter().any(|word| lower == word.repeat(2)) {
        "this password is one that everybody tries first"
    } else if user.chars().count() > 3 && lower.contains(&user.to_lowercase()) {
        "a password must not contain the user's name"
    } else {
        return Ok(());
    };
    Err(Refusal::bad(why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_password_is_kept_as_argon2id_and_known_again() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(is_hash(&hash) && !is_hash("admin") && !is_hash("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap(), "salted");
        assert!(passwords.verify(Some(hash.clone()), "correct horse".into()).await.unwrap());
        assert!(!passwords.verify(Some(hash), "wrong horse".into()).await.unwrap());
        assert!(!passwords.verify(Some("rubbish".into()), "wrong horse".into()).await.unwrap());
        assert!(
            !passwords.verify(None, "nobody has this password".into()).await.unwrap(),
            "nobody is nobody"
        );
    }

    #[tokio::test]
    async fn a_password_for_nobody_is_compared_with_a_hash_that_costs_what_any_does() {
        let passwords = Passwords::new().unwrap();
        let costs = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
        let real = passwords.hash("correct horse".into()).await.unwrap();
        assert_eq!(costs(&passwords.nobody), costs(&real));
        assert!(matches(&passwords.nobody, "nobody has this password"), "it is a hash");
        for hash in [Some(real), None] {
            let all = passwords.turns.acquire_many(2).await.unwrap();
            let mut asked = std::pin::pin!(passwords.verify(hash, "wrong horse".into()));
            let waits =
                std::future::poll_fn(|cx| std::task::Poll::Ready(asked.as_mut().poll(cx).is_pending()));
            assert!(waits.await, "it takes the turn of a hash");
            drop(all);
            assert!(!asked.await.unwrap());
        }
    }

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        for (password, why) in [
            ("short", "12 characters"),
            ("aaaaaaaaaaaabbb", "repeats"),
            ("Administrator1!", "everybody"),
            ("passwordpassword", "everybody"),
            ("my zoey is best", "name"),
        ] {
            assert!(judge(password, "zoey").unwrap_err().text.contains(why), "{password}");
        }
        assert!(judge("correct horse battery", "zoey").is_ok());
        assert!(judge("Grüße an die Küche", "zoey").is_ok());
    }
}
