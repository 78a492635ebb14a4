//! Handshakes that ask for the client's certificate, one kind for each file of authorities that instances name. A file is read when
//! it is first needed and taken up anew when it changes, judged as certificates are: one that isn't fit is refused, and the one
//! before stays; without one before, nobody gets in.
//!
//! No session of such a handshake is resumed: each connection shows its certificate, to the authorities as they are then.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use http::HeaderValue;
use nexushub_chassis::launch::secret::hex;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use sha2::{Digest, Sha256};
use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    prelude::{FromDer, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::{
    shelf::{Shelf, Stamp, stamp},
    tls,
};

/// A client who proved in the handshake who it is.
#[derive(Debug)]
pub(crate) struct Verified {
    /// To whom: the file of the authorities.
    pub(crate) ca: PathBuf,
    /// As text of printable ASCII (RFC 4514).
    pub(crate) subject: HeaderValue,
    /// Of the certificate, hexadecimal.
    pub(crate) sha256: HeaderValue,
}

impl Verified {
    /// By this certificate; none if it can't be read.
    pub(crate) fn by(ca: PathBuf, certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = HeaderValue::try_from(text(parsed.subject())).ok()?;
        let sha256 = HeaderValue::try_from(hex(&Sha256::digest(certificate))).ok()?;
        Some(Self { ca, subject, sha256 })
    }
}

/// A name as text: its parts from the last to the first, no character in them that could be mistaken for one between them.
fn text(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let kind = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
    match attribute.as_str() {
        Ok(value) => format!("{kind}={}", escaped(value)),
        Err(_) => format!("{kind}=#{}", hex(attribute.as_slice())),
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        let at_edge = (at == 0 && byte == b'#') || (byte == b' ' && (at == 0 || at + 1 == value.len()));
        match byte {
            _ if at_edge || b",+\"\\<>;=".contains(&byte) => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            other => text.push_str(&format!("\\{other:02X}")),
        }
    }
    text
}

/// The handshakes for one file.
struct Guard {
    seen: Stamp,
    /// None while the file has never been fit.
    config: Option<Arc<ServerConfig>>,
}

/// All of them.
pub(crate) struct Guards {
    shelf: Arc<Shelf>,
    known: RwLock<HashMap<PathBuf, Guard>>,
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guards").finish_non_exhaustive()
    }
}

impl Guards {
    /// None yet; with these certificates of our own.
    pub(crate) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, known: RwLock::default() }
    }

    /// How hands are shaken with clients of this file, if it is known already.
    pub(crate) fn known(&self, ca: &Path) -> Option<Arc<ServerConfig>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(ca)?.config.clone()
    }

    /// The same, read now if it isn't; none if it isn't fit, which the log says. Reads files.
    pub(crate) fn learn(&self, ca: &Path) -> Option<Arc<ServerConfig>> {
        self.look_at(ca);
        self.known(ca)
    }

    /// Takes up what has changed and is fit. Reads files.
    pub(crate) fn take_up(&self) {
        let files: Vec<_> =
            self.known.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        files.iter().for_each(|ca| self.look_at(ca));
    }

    fn look_at(&self, ca: &Path) {
        let now = stamp(ca);
        let seen = self.known.read().unwrap_or_else(PoisonError::into_inner).get(ca).map(|guard| guard.seen);
        if seen == Some(now) {
            return;
        }
        let config = self.load(ca);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let guard = known.entry(ca.to_path_buf()).or_insert(Guard { seen: now, config: None });
        guard.seen = now;
        match config {
            Ok(config) => {
                tracing::info!(object = %ca.display(), "clients are verified by these authorities");
                guard.config = Some(Arc::new(config));
            }
            Err(error) => {
                let kept = guard.config.is_some();
                tracing::warn!(object = %ca.display(), %error, kept, "authorities of clients are refused");
            }
        }
    }

    fn load(&self, ca: &Path) -> io::Result<ServerConfig> {
        let pem = fs::read(ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
        let verifier = verifier.build().map_err(io::Error::other)?;
        let mut config = tls::config(Arc::clone(&self.shelf), Some(verifier)).map_err(io::Error::other)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;
    use crate::{certificate, shelf::Place};

    fn subject(entries: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in entries {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let verified = Verified::by("/ca".into(), certificate.der()).unwrap();
        assert_eq!(verified.sha256.len(), 64);
        verified.subject.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_subject_is_told_from_its_last_part_to_its_first_and_nothing_in_it_passes_for_a_part() {
        let whole =
            [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Shop"), (DnType::CommonName, "anna")];
        assert_eq!(subject(&whole), "CN=anna,O=Shop,C=DE");
        for (name, told) in [
            ("a,O=admins", "a\\,O\\=admins"),
            ("a+b\"c\\d<e>;", "a\\+b\\\"c\\\\d\\<e\\>\\;"),
            (" #x ", "\\ #x\\ "),
            ("#x", "\\#x"),
            ("ä\r\n", "\\C3\\A4\\0D\\0A"),
            ("", ""),
        ] {
            assert_eq!(subject(&[(DnType::CommonName, name)]), format!("CN={told}"));
        }
        assert_eq!(subject(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")]), "1.2.3.4=x");
        assert_eq!(subject(&[]), "");
    }

    #[test]
    fn authorities_are_taken_up_anew_when_they_change_and_unfit_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let (certificate, key) = certificate::tests::make(&["a.test"], (2020, 2090));
        let place = Place { certificate: file("server.crt"), key: file("server.key") };
        fs::write(&place.certificate, &certificate).unwrap();
        fs::write(&place.key, key).unwrap();
        fs::set_permissions(&place.key, fs::Permissions::from_mode(0o600)).unwrap();
        let guards = Guards::new(Arc::new(Shelf::load(vec![place], tls::provider()).unwrap()));
        let ca = file("ca.pem");
        assert!(guards.learn(&ca).is_none(), "there is none");
        fs::write(&ca, "no certificate").unwrap();
        assert!(guards.learn(&ca).is_none());
        fs::write(&ca, certificate).unwrap();
        guards.take_up();
        let first = guards.known(&ca).unwrap();
        guards.take_up();
        assert!(Arc::ptr_eq(&first, &guards.known(&ca).unwrap()), "nothing changed");
        fs::write(&ca, "half of").unwrap();
        guards.take_up();
        assert!(Arc::ptr_eq(&first, &guards.known(&ca).unwrap()));
        fs::write(&ca, certificate::tests::make(&["b.test"], (2020, 2090)).0).unwrap();
        guards.take_up();
        assert!(!Arc::ptr_eq(&first, &guards.known(&ca).unwrap()));
    }
}
