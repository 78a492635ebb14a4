//! The certificates in use: chosen by the name that a client asks for, and taken up anew when their files change.
//!
//! What is found is judged as at the start; a pair that isn't fit is refused, once, and the one before stays. Connections keep
//! the certificate that they were greeted with.

use std::{
    collections::HashMap,
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    certificate::{self, Names, Pair, Problem},
    tls::now_unix,
};

/// Where a pair lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Place {
    fn load(&self, provider: &CryptoProvider) -> Result<Arc<Pair>, Problem> {
        certificate::load(&self.certificate, &self.key, now_unix(), provider).map(Arc::new)
    }

    fn stamps(&self) -> Stamps {
        let staple = certificate::staple_of(&self.certificate);
        [&self.certificate, &self.key, &staple].map(|path| stamp(path))
    }
}

/// What tells that a file is another than before, wherever links lead to it; nothing where there is none.
pub(crate) type Stamp = Option<(u64, u64, u64, i64, i64)>;
type Stamps = [Stamp; 3];

pub(crate) fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

/// Pairs, and which of them answers for which name. Immutable.
#[derive(Debug)]
struct Index {
    /// The first answers where no other does.
    pairs: Vec<Arc<Pair>>,
    exact: HashMap<String, usize>,
    /// By what follows `*.`.
    wild: HashMap<String, usize>,
}

impl Index {
    fn new(pairs: Vec<Arc<Pair>>) -> Self {
        let (mut exact, mut wild) = (HashMap::new(), HashMap::new());
        for (at, pair) in pairs.iter().enumerate() {
            for name in pair.names.dns() {
                match name.strip_prefix("*.") {
                    Some(parent) => wild.entry(parent.to_owned()).or_insert(at),
                    None => exact.entry(name.clone()).or_insert(at),
                };
            }
        }
        Self { pairs, exact, wild }
    }

    /// The pair for a name, lower case: one that has it before one that covers it.
    fn choose(&self, name: Option<&str>) -> &Arc<Pair> {
        let found = name.and_then(|name| {
            let wild = || self.wild.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wild)
        });
        &self.pairs[found.copied().unwrap_or(0)]
    }
}

/// All certificates of a proxy.
pub(crate) struct Shelf {
    places: Vec<Place>,
    provider: Arc<CryptoProvider>,
    index: RwLock<Arc<Index>>,
    /// Of the files that were looked at last.
    seen: Mutex<Vec<Stamps>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Shelf {
    /// Reads and judges the pairs of these places, of which there is one at least; the first is the one for clients that ask
    /// for a name of nobody's, or for none.
    pub(crate) fn load(places: Vec<Place>, provider: Arc<CryptoProvider>) -> Result<Self, Problem> {
        let seen = places.iter().map(Place::stamps).collect();
        let pairs = places.iter().map(|place| place.load(&provider)).collect::<Result<_, _>>()?;
        Ok(Self { places, provider, index: RwLock::new(Arc::new(Index::new(pairs))), seen: Mutex::new(seen) })
    }

    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The names of the certificate with which a client is greeted that asks for this one.
    pub(crate) fn names(&self, name: &str) -> Arc<Names> {
        Arc::clone(&self.index().choose(Some(name)).names)
    }

    /// Takes up what has changed and is fit. Reads files.
    pub(crate) fn take_up(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs = self.index().pairs.clone();
        let mut changed = false;
        for ((place, seen), pair) in self.places.iter().zip(seen.iter_mut()).zip(&mut pairs) {
            let now = place.stamps();
            if *seen == now {
                continue;
            }
            *seen = now;
            match place.load(&self.provider) {
                Ok(new) => {
                    tracing::info!(certificate = %place.certificate.display(), "a changed certificate is in use");
                    *pair = new;
                    changed = true;
                }
                Err(problem) => tracing::warn!(
                    code = problem.code,
                    object = %problem.object.display(),
                    error = problem.msg,
                    hint = problem.hint,
                    "a changed certificate is refused; the one before stays in use"
                ),
            }
        }
        if changed {
            *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Index::new(pairs));
        }
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(Arc::clone(self.index().choose(name.as_deref()).greeting(now_unix())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{certificate::tests::make, tls};

    /// Puts a new pair for these names at a place.
    fn put(place: &Place, names: &[&str]) {
        let (certificate, key) = make(names, (2020, 2090));
        fs::write(&place.certificate, certificate).unwrap();
        fs::write(&place.key, key).unwrap();
        fs::set_permissions(&place.key, Permissions::from_mode(0o600)).unwrap();
    }

    fn places<const N: usize>(folder: &Path, names: [&[&str]; N]) -> Vec<Place> {
        let place = |(at, names): (usize, &&[&str])| {
            let file = |kind: &str| folder.join(format!("{at}.{kind}"));
            let place = Place { certificate: file("crt"), key: file("key") };
            put(&place, names);
            place
        };
        names.iter().enumerate().map(place).collect()
    }

    /// Which pair greets a client that asks for this.
    fn greeted(shelf: &Shelf, name: Option<&str>) -> usize {
        let index = shelf.index();
        let chosen = index.choose(name);
        index.pairs.iter().position(|pair| Arc::ptr_eq(pair, chosen)).unwrap()
    }

    #[test]
    fn a_name_of_its_own_comes_before_one_that_covers_it_and_nobodys_gets_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let names: [&[&str]; 3] =
            [&["*.a.test", "a.test"], &["shop.a.test", "*.b.test"], &["shop.a.test", "*.a.test"]];
        let shelf = Shelf::load(places(folder.path(), names), tls::provider()).unwrap();
        for (name, at) in [
            (None, 0),
            (Some("x.a.test"), 0),
            (Some("a.test"), 0),
            (Some("shop.a.test"), 1),
            (Some("y.b.test"), 1),
            (Some("b.test"), 0),
            (Some("deep.y.b.test"), 0),
            (Some("nobody.test"), 0),
            (Some("localhost"), 0),
        ] {
            assert_eq!(greeted(&shelf, name), at, "{name:?}");
        }
        assert!(shelf.names("shop.a.test").covers("q.b.test"));
    }

    #[test]
    fn a_changed_pair_is_taken_up_and_an_unfit_one_refused_until_it_changes_again() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path(), [&["a.test"], &["b.test"]]);
        let shelf = Shelf::load(places.clone(), tls::provider()).unwrap();
        let greeting = |name: &str| Arc::clone(shelf.index().choose(Some(name)));
        let (a, b) = (greeting("a.test"), greeting("b.test"));
        shelf.take_up();
        assert!(Arc::ptr_eq(&a, &greeting("a.test")), "nothing changed");
        put(&places[1], &["b.test", "c.test"]);
        shelf.take_up();
        assert!(!Arc::ptr_eq(&b, &greeting("b.test")) && Arc::ptr_eq(&a, &greeting("a.test")));
        assert!(shelf.names("c.test").covers("b.test"));
        let good = greeting("b.test");
        fs::write(&places[1].certificate, "half of").unwrap();
        shelf.take_up();
        assert!(Arc::ptr_eq(&good, &greeting("b.test")), "what isn't fit is refused");
        fs::remove_file(&places[1].key).unwrap();
        shelf.take_up();
        assert!(Arc::ptr_eq(&good, &greeting("b.test")), "what isn't there is not taken up");
        put(&places[1], &["b.test"]);
        shelf.take_up();
        assert!(!Arc::ptr_eq(&good, &greeting("b.test")));
    }

    #[test]
    fn a_staple_beside_the_certificate_is_taken_along_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path(), [&["a.test"]]);
        let shelf = Shelf::load(places.clone(), tls::provider()).unwrap();
        let staple_at = |now: i64| shelf.index().choose(None).greeting(now).ocsp.clone();
        let staple = || staple_at(now_unix());
        assert_eq!(staple(), None);
        let beside = certificate::staple_of(&places[0].certificate);
        fs::write(&beside, [0x30, 3, 10, 1, 0]).unwrap();
        shelf.take_up();
        assert_eq!(staple().as_deref(), Some(&[0x30, 3, 10, 1, 0][..]));
        fs::write(&beside, "<html>").unwrap();
        shelf.take_up();
        assert!(staple().is_some(), "the pair before stays, with its staple");
        let answer = certificate::tests::ocsp(&[Some("20900101000000Z")]);
        fs::write(&beside, &answer).unwrap();
        shelf.take_up();
        let until = 3_786_912_000;
        assert_eq!(
            (staple_at(until - 1), staple_at(until)),
            (Some(answer), None),
            "no longer than it is good"
        );
        fs::remove_file(&beside).unwrap();
        shelf.take_up();
        assert_eq!(staple(), None);
    }
}
