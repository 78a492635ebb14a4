//! Session tickets: what a client brings back to resume its session without a second full handshake. The keys that seal them are
//! made here, kept in `$STATE/proxy/tickets.json`, shared by the generations of the proxy, and replaced as time goes on, so a
//! restart costs nobody a handshake and a stolen key opens the sessions of some hours only.
//!
//! ```text
//! born --12 h: seals and opens--> --24 h: opens only--> forgotten
//! ticket: first half of SHA-256 of the key · nonce · sealed session · tag      (AES-256-GCM)
//! ```

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use nexushub_chassis::launch::{durable, lock::Lock, secret};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long a key seals.
const SEALS: i64 = 12 * 3600;
/// How long it opens.
const OPENS: i64 = 3 * SEALS;
/// A ticket is good for as long as its key opens at least.
const LIFETIME: u32 = 24 * 3600;
/// A key of a later time than this is of a clock that was wrong.
const SKEW: i64 = 300;
/// Longest wait for another generation of the proxy that makes a key.
const PATIENCE: Duration = Duration::from_secs(2);
/// A file of keys is smaller than this.
const MOST_BYTES: u64 = 64 * 1024;
const NAME_LEN: usize = 16;

/// A key as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// 64 hexadecimal digits.
    secret: String,
    born_unix: i64,
}

/// A key in use.
struct Key {
    name: [u8; NAME_LEN],
    aead: RandomizedNonceKey,
    kept: Kept,
}

impl Key {
    fn new(kept: Kept) -> Option<Self> {
        let bytes = secret::from_hex(&kept.secret)?;
        let name = *Sha256::digest(bytes).first_chunk()?;
        Some(Self { name, aead: RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?, kept })
    }

    fn make(now: i64) -> io::Result<Self> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
        let kept = Kept { secret: secret::hex(&bytes), born_unix: now };
        Self::new(kept).ok_or_else(|| io::Error::other("the key can't be used"))
    }

    fn seals(&self, now: i64) -> bool {
        self.opens(now) && now < self.kept.born_unix + SEALS
    }

    fn opens(&self, now: i64) -> bool {
        (self.kept.born_unix - SKEW..self.kept.born_unix + OPENS).contains(&now)
    }
}

/// Seals and opens tickets.
pub(crate) struct Tickets {
    path: PathBuf,
    /// The one that seals first.
    keys: RwLock<Arc<[Key]>>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tickets {
    /// With the keys that are kept below this state folder, or new ones. Without a place to keep them they are good for this
    /// process only, which the log says.
    pub(crate) fn load(state: &Path, now_unix: i64) -> Self {
        let path = state.join("proxy").join("tickets.json");
        let tickets = Self { path, keys: RwLock::new(Arc::new([])) };
        tickets.tend(now_unix);
        tickets
    }

    fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sees to it that there is a key that seals: that of another generation, or a new one. Reads and writes files then.
    pub(crate) fn tend(&self, now_unix: i64) {
        if self.keys().first().is_some_and(|key| key.seals(now_unix)) {
            return;
        }
        let keys = self.renew(now_unix).or_else(|error| {
            let error = nexushub_chassis::chain(&error);
            tracing::warn!(object = %self.path.display(), error, "the keys of session tickets are not kept");
            Key::make(now_unix).map(|key| vec![key])
        });
        match keys {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into(),
            Err(error) => tracing::warn!(%error, "there is no new key for session tickets"),
        }
    }

    fn renew(&self, now: i64) -> io::Result<Vec<Key>> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let turn = Lock::acquire_within(&self.path.with_extension("lock"), PATIENCE)?;
        let _turn = turn.ok_or_else(|| io::Error::other("another proxy holds them"))?;
        let mut keys = self.kept(now);
        if !keys.first().is_some_and(|key| key.seals(now)) {
            keys.insert(0, Key::make(now)?);
            let kept: Vec<&Kept> = keys.iter().map(|key| &key.kept).collect();
            durable::write(&self.path, &serde_json::to_vec(&kept)?, 0o600)?;
        }
        Ok(keys)
    }

    /// The keys of the file that still open, the youngest first. What can't be read is none: tickets are nobody's due.
    fn kept(&self, now: i64) -> Vec<Key> {
        let read = || -> io::Result<Vec<Kept>> {
            if fs::metadata(&self.path)?.len() > MOST_BYTES {
                return Err(io::Error::other("too large"));
            }
            Ok(serde_json::from_slice(&fs::read(&self.path)?)?)
        };
        let kept = read().unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(object = %self.path.display(), %error, "kept keys of session tickets are ignored");
            }
            Vec::new()
        });
        let mut keys: Vec<Key> = kept.into_iter().filter_map(Key::new).filter(|key| key.opens(now)).collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.kept.born_unix));
        keys
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys();
        // Names are no secret: each ticket shows one.
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut opened = sealed.to_vec();
        let length = key.aead.open_in_place(Nonce::from(nonce), Aad::from(*name), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn tickets() -> (tempfile::TempDir, Tickets) {
        let state = tempfile::tempdir().unwrap();
        let tickets = Tickets::load(state.path(), NOW);
        (state, tickets)
    }

    #[test]
    fn a_ticket_is_opened_by_who_sealed_it_and_by_the_next_process() {
        let (state, tickets) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_ne!(ticket, tickets.encrypt(b"session").unwrap(), "no two are alike");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let next = Tickets::load(state.path(), NOW + 60);
        assert_eq!(next.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        let mode = fs::metadata(state.path().join("proxy/tickets.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_tampered_with_cut_or_made_by_others_is_not_opened() {
        let (_state, tickets) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(tickets.decrypt(&forged), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        let (_other, stranger) = self::tickets();
        assert_eq!(stranger.decrypt(&ticket), None);
    }

    #[test]
    fn keys_are_replaced_and_a_ticket_is_good_for_its_lifetime_but_not_for_ever() {
        let (_state, tickets) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        tickets.tend(NOW + SEALS - 1);
        assert_eq!(tickets.keys().len(), 1);
        tickets.tend(NOW + SEALS);
        let second = tickets.encrypt(b"session").unwrap();
        assert_ne!(ticket[..NAME_LEN], second[..NAME_LEN]);
        tickets.tend(NOW + 2 * SEALS);
        assert!(tickets.decrypt(&ticket).is_some() && 2 * SEALS >= i64::from(LIFETIME));
        tickets.tend(NOW + OPENS);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert!(tickets.decrypt(&second).is_some());
    }

    #[test]
    fn two_generations_agree_on_a_new_key() {
        let (state, old) = tickets();
        let new = Tickets::load(state.path(), NOW);
        let later = NOW + SEALS;
        new.tend(later);
        old.tend(later);
        assert!(old.decrypt(&new.encrypt(b"x").unwrap()).is_some());
        assert!(new.decrypt(&old.encrypt(b"x").unwrap()).is_some());
    }

    #[test]
    fn a_file_that_makes_no_sense_costs_the_kept_sessions_only() {
        let (state, tickets) = tickets();
        let ticket = tickets.encrypt(b"session").unwrap();
        let path = state.path().join("proxy/tickets.json");
        let future = format!("[{{\"secret\":\"{}\",\"born_unix\":{}}}]", "ab".repeat(32), NOW + 86_400);
        for noise in ["", "{}", "[{\"secret\":\"zz\",\"born_unix\":1800000000}]", future.as_str()] {
            fs::write(&path, noise).unwrap();
            let next = Tickets::load(state.path(), NOW);
            assert_eq!(next.decrypt(&ticket), None, "{noise}");
            assert!(next.decrypt(&next.encrypt(b"x").unwrap()).is_some());
        }
        fs::remove_dir_all(state.path().join("proxy")).unwrap();
        fs::write(state.path().join("proxy"), "in the way").unwrap();
        let nowhere = Tickets::load(state.path(), NOW);
        assert!(nowhere.encrypt(b"x").is_some(), "what can't be kept still serves");
    }
}
