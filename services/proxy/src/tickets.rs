//! Session tickets: what a client brings back to resume its session without a second full handshake. The keys that seal them are
//! made here and kept (`keys.rs`), so a restart costs nobody a handshake and a stolen key opens the sessions of some hours only.
//!
//! ```text
//! ticket: first half of SHA-256 of the key · nonce · sealed session · tag      (AES-256-GCM)
//! ```

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use crate::keys::{Keys, NAME_LEN};

/// A ticket is good for as long as its key opens at least.
const LIFETIME: u32 = 24 * 3600;

/// Seals and opens tickets.
#[derive(Debug)]
pub(crate) struct Tickets {
    keys: Keys<RandomizedNonceKey>,
}

impl Tickets {
    /// With the keys that are kept below this state folder, or new ones.
    pub(crate) fn load(state: &Path, now_unix: i64) -> Self {
        let tool = |bytes: &[u8; 32]| RandomizedNonceKey::new(&AES_256_GCM, bytes).ok();
        Self { keys: Keys::load(state, "tickets.json", tool, now_unix) }
    }

    /// Sees to it that there is a key that seals. Reads and writes files when there is none.
    pub(crate) fn tend(&self, now_unix: i64) {
        self.keys.tend(now_unix);
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
        let keys = self.keys.ring();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.tool.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.ring();
        // Names are no secret: each ticket shows one.
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut opened = sealed.to_vec();
        let length = key.tool.open_in_place(Nonce::from(nonce), Aad::from(*name), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::keys::{OPENS, SEALS};

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
        assert_eq!(tickets.keys.ring().len(), 1);
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
