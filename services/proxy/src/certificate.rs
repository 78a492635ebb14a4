//! Judges the certificate and its key before they are used: there, readable, PEM, in date, a pair, and the key secret.
//! The judgement itself is pure; `load` reads the files.

use std::{
    fmt, fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{
    asn1_rs::{Any, Class, Tag},
    der_parser::{ber::BerObjectContent, der::parse_der},
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

/// Why a pair can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// For programs: `certificate_expired`.
    pub code: &'static str,
    /// The file it is about.
    pub object: PathBuf,
    /// What happened.
    pub msg: String,
    /// What to do next.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.msg, self.object.display())
    }
}

impl std::error::Error for Problem {}

impl Problem {
    fn new(code: &'static str, object: &Path, msg: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, object: object.to_path_buf(), msg: msg.into(), hint: hint.into() }
    }
}

/// A certificate with its key, fit for use.
#[derive(Debug)]
pub(crate) struct Pair {
    certified: Arc<CertifiedKey>,
    stapled: Option<Stapled>,
    pub(crate) names: Arc<Names>,
}

/// The same with its issuer's answer that it is not revoked.
#[derive(Debug)]
struct Stapled {
    certified: Arc<CertifiedKey>,
    /// When the issuer will have said more, where it names a time; clients refuse an answer that is older than that.
    until_unix: Option<i64>,
    path: PathBuf,
    /// It was said that it is too old.
    told: AtomicBool,
}

impl Pair {
    /// What a client is greeted with: with the issuer's answer as long as that is good.
    pub(crate) fn greeting(&self, now_unix: i64) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some(stapled) if stapled.is_good(now_unix) => &stapled.certified,
            _ => &self.certified,
        }
    }
}

impl Stapled {
    /// Whether the answer may still be given; that it may not is told once.
    fn is_good(&self, now_unix: i64) -> bool {
        let good = self.until_unix.is_none_or(|until| now_unix < until);
        if !good && !self.told.swap(true, Ordering::Relaxed) {
            let hint = "fetch a new one from the certificate's issuer, or remove it";
            tracing::warn!(object = %self.path.display(), hint, "an OCSP answer is too old and not stapled");
        }
        good
    }
}

/// The names that a certificate covers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Lower case; `*.x` covers one label more than `x`.
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// These DNS names.
    #[cfg(test)]
    pub(crate) fn of(dns: &[&str]) -> Self {
        Self { dns: dns.iter().map(|name| (*name).to_owned()).collect(), addresses: Vec::new() }
    }

    /// The DNS names, lower case.
    pub(crate) fn dns(&self) -> &[String] {
        &self.dns
    }

    /// Whether a host, lower case, is among them.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let may_be_address = host.ends_with(|last: char| last.is_ascii_digit()) || host.contains(':');
        if may_be_address && let Ok(address) = host.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.dns.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
            }
            None => name == host,
        })
    }
}

/// Reads and judges both files.
pub(crate) fn load(
    certificate: &Path,
    key: &Path,
    now_unix: i64,
    provider: &CryptoProvider,
) -> Result<Pair, Problem> {
    let chain = read(certificate, ("certificate_missing", "certificate_unreadable"), "certificate")?;
    let secret = read(key, ("key_missing", "key_unreadable"), "key")?;
    let metadata = fs::metadata(key)
        .map_err(|error| unreadable(key, ("key_missing", "key_unreadable"), "key", &error))?;
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        let msg = format!("key may be read by group or others (mode {:04o})", mode & 0o7777);
        return Err(Problem::new("key_permissions", key, msg, format!("run `chmod 600 {}`", key.display())));
    }
    let mut pair = judge((certificate, &chain), (key, &secret), now_unix, provider)?;
    let path = staple_of(certificate);
    if let Some(staple) = staple(&path)? {
        let until_unix = good_until(&staple);
        let certified = CertifiedKey { ocsp: Some(staple), ..CertifiedKey::clone(&pair.certified) };
        pair.stapled =
            Some(Stapled { certified: Arc::new(certified), until_unix, path, told: AtomicBool::new(false) });
    }
    Ok(pair)
}

/// Where the answer of the certificate's issuer lies that it is not revoked (OCSP), for those who have one: `server.ocsp` beside
/// `server.crt`.
pub(crate) fn staple_of(certificate: &Path) -> PathBuf {
    certificate.with_extension("ocsp")
}

fn staple(path: &Path) -> Result<Option<Vec<u8>>, Problem> {
    let staple = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| unreadable(path, ("", "staple_unreadable"), "OCSP answer", &error))?,
    };
    // Clients judge what it says; here only that it is a whole value of the right kind, says "successful", and until when.
    if is_successful(&staple) {
        return Ok(Some(staple));
    }
    let hint = "a DER file as the certificate's issuer answers it is needed; or remove it";
    Err(Problem::new("staple_invalid", path, "OCSP answer is not valid", hint))
}

/// Whether this is an OCSPResponse with the status `successful` (RFC 6960, 4.2.1).
fn is_successful(staple: &[u8]) -> bool {
    let Ok((rest, answer)) = parse_der(staple) else { return false };
    let status = answer.as_sequence().ok().and_then(|parts| parts.first());
    rest.is_empty() && status.is_some_and(|status| status.content == BerObjectContent::Enum(0))
}

/// Until when an OCSPResponse is good: the first `nextUpdate` that is due (RFC 6960, 4.2.1), where there is one.
fn good_until(staple: &[u8]) -> Option<i64> {
    let response = values(staple).next()?;
    let tagged = values(response.data).nth(1)?;
    let bytes = values(tagged.data).next()?;
    let basic = values(bytes.data).nth(1)?;
    let basic = values(basic.data).next()?;
    let data = values(basic.data).next()?;
    // Of what stands in there only the answers, one for each certificate, are a plain sequence.
    let answers = values(data.data).find(|part| part.header.tag() == Tag::Sequence)?;
    values(answers.data).filter_map(|answer| next_update(&answer)).min()
}

/// What follows `thisUpdate`, if that is it.
fn next_update(answer: &Any<'_>) -> Option<i64> {
    let mut parts = values(answer.data).skip_while(|part| part.header.tag() != Tag::GeneralizedTime).skip(1);
    let tagged = parts
        .next()
        .filter(|part| part.header.class() == Class::ContextSpecific && part.header.tag() == Tag(0))?;
    ASN1Time::from_der(tagged.data).ok().map(|(_, time)| time.timestamp())
}

/// The values that these bytes are, one after the other, as far as they are any.
fn values(mut bytes: &[u8]) -> impl Iterator<Item = Any<'_>> {
    std::iter::from_fn(move || {
        let (rest, value) = Any::from_der(bytes).ok()?;
        bytes = rest;
        Some(value)
    })
}

/// Judges the contents of both files.
pub(crate) fn judge(
    (certificate, chain): (&Path, &[u8]),
    (key, secret): (&Path, &[u8]),
    now_unix: i64,
    provider: &CryptoProvider,
) -> Result<Pair, Problem> {
    let chain = read_chain(certificate, chain)?;
    let names = judge_leaf(certificate, &chain[0], now_unix)?;
    let invalid = |cause: String| {
        let hint = "a PEM file with one PKCS#8, SEC1 or PKCS#1 private key is needed";
        Problem::new("key_invalid", key, format!("key can't be used: {cause}"), hint)
    };
    let private = PrivateKeyDer::from_pem_slice(secret)
        .map_err(|_| invalid("no PEM private key in the file".into()))?;
    let signing =
        provider.key_provider.load_private_key(private).map_err(|error| invalid(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signing);
    certified.keys_match().map_err(|_| {
        let msg = format!("key doesn't match the certificate {}", certificate.display());
        Problem::new(
            "key_mismatch",
            key,
            msg,
            "install the key that this certificate was made for, or make both anew",
        )
    })?;
    Ok(Pair { certified: Arc::new(certified), stapled: None, names: Arc::new(names) })
}

fn read(path: &Path, codes: (&'static str, &'static str), what: &str) -> Result<Vec<u8>, Problem> {
    fs::read(path).map_err(|error| unreadable(path, codes, what, &error))
}

fn unreadable(
    path: &Path,
    (missing, unreadable): (&'static str, &'static str),
    what: &str,
    error: &io::Error,
) -> Problem {
    if error.kind() == io::ErrorKind::NotFound {
        let hint = format!("`dist/up` makes a development certificate; or set `{what}` in the [proxy] table");
        return Problem::new(missing, path, format!("{what} does not exist"), hint);
    }
    let hint = "the daemon's user must be able to read the file";
    Problem::new(unreadable, path, format!("{what} can't be read: {error}"), hint)
}

fn read_chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let invalid = |cause: &str| {
        let hint = "a PEM file with the server's certificate first is needed";
        Problem::new("certificate_invalid", path, format!("certificate is not valid: {cause}"), hint)
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(&error.to_string()))?;
    if chain.is_empty() { Err(invalid("no PEM certificate in the file")) } else { Ok(chain) }
}

fn judge_leaf(path: &Path, leaf: &CertificateDer<'_>, now_unix: i64) -> Result<Names, Problem> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| {
        let msg = format!("certificate is not valid: {error}");
        Problem::new("certificate_invalid", path, msg, "the file holds PEM, but not an X.509 certificate")
    })?;
    let validity = parsed.validity();
    if now_unix < validity.not_before.timestamp() {
        let msg = format!("certificate is not valid before {}", validity.not_before);
        return Err(Problem::new("certificate_not_yet_valid", path, msg, "check the machine's clock"));
    }
    if now_unix > validity.not_after.timestamp() {
        let msg = format!("certificate has expired on {}", validity.not_after);
        let hint = "renew it; a development certificate: delete it and run `dist/up`";
        return Err(Problem::new("certificate_expired", path, msg, hint));
    }
    Ok(names(&parsed))
}

fn names(certificate: &X509Certificate<'_>) -> Names {
    let mut names = Names::default();
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return names };
    for name in &alternative.value.general_names {
        match name {
            GeneralName::DNSName(dns) => names.dns.push(dns.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
            _ => {}
        }
    }
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::Permissions;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 2026-01-01.
    const NOW: i64 = 1_767_225_600;

    /// A value of this tag, of up to 255 bytes.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        let long: &[u8] = if length < 0x80 { &[] } else { &[0x81] };
        [&[tag], long, &[length], &content[..]].concat()
    }

    /// An OCSP answer for certificates, with the `nextUpdate` of each.
    pub(crate) fn ocsp(next_updates: &[Option<&str>]) -> Vec<u8> {
        let time = |text: &str| der(0x18, &[text.as_bytes()]);
        let answer = |next: &Option<&str>| {
            let next = next.map(|next| der(0xa0, &[&time(next)])).unwrap_or_default();
            der(0x30, &[&der(0x30, &[]), &[0x80, 0], &time("20200101000000Z"), &next])
        };
        let answers: Vec<_> = next_updates.iter().map(answer).collect();
        let answers = der(0x30, &answers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let data = der(0x30, &[&der(0xa1, &[&der(0x30, &[])]), &time("20200101000000Z"), &answers]);
        let basic = der(0x30, &[&data, &der(0x30, &[]), &der(0x03, &[&[0]])]);
        let bytes = der(0x30, &[&der(0x06, &[&[0x2b, 6, 1, 5, 5, 7, 48, 1, 1]]), &der(0x04, &[&basic])]);
        der(0x30, &[&der(0x0a, &[&[0]]), &der(0xa0, &[&bytes])])
    }

    #[test]
    fn an_ocsp_answer_is_good_until_the_first_time_that_it_names() {
        for (next_updates, until) in [
            (&[Some("20260101000000Z")][..], Some(NOW)),
            (&[None, Some("20270101000000Z"), Some("20260101000000Z")], Some(NOW)),
            (&[None], None),
            (&[], None),
        ] {
            let answer = ocsp(next_updates);
            assert!(is_successful(&answer));
            assert_eq!(good_until(&answer), until);
            for cut in 0..answer.len() {
                good_until(&answer[..cut]); // whatever it is, it is read without harm
            }
        }
    }

    /// A certificate for these names and its key, PEM.
    pub(crate) fn make(names: &[&str], years: (i32, i32)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn provider() -> CryptoProvider {
        rustls::crypto::aws_lc_rs::default_provider()
    }

    fn code(certificate: &str, key: &str) -> &'static str {
        let judged = judge(
            (Path::new("/c"), certificate.as_bytes()),
            (Path::new("/k"), key.as_bytes()),
            NOW,
            &provider(),
        );
        match judged {
            Ok(_) => "fit",
            Err(problem) => {
                assert!(!problem.msg.is_empty() && !problem.hint.is_empty(), "{problem:?}");
                problem.code
            }
        }
    }

    #[test]
    fn contents_are_judged_by_date_form_and_match() {
        let (certificate, key) = make(&["a.test"], (2020, 2040));
        let (expired, expired_key) = make(&["a.test"], (2010, 2020));
        let (early, early_key) = make(&["a.test"], (2030, 2040));
        let (_, stranger) = make(&["a.test"], (2020, 2040));
        assert_eq!(code(&certificate, &key), "fit");
        assert_eq!(code(&expired, &expired_key), "certificate_expired");
        assert_eq!(code(&early, &early_key), "certificate_not_yet_valid");
        assert_eq!(code(&certificate, &stranger), "key_mismatch");
        assert_eq!(code("not PEM", &key), "certificate_invalid");
        assert_eq!(code("", &key), "certificate_invalid");
        assert_eq!(code(&key, &key), "certificate_invalid", "a key is no certificate");
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(code(junk, &key), "certificate_invalid");
        assert_eq!(code(&certificate, "not PEM"), "key_invalid");
        let half = &key[..key.len() / 2];
        assert_eq!(code(&certificate, half), "key_invalid");
    }

    #[test]
    fn files_are_judged_by_presence_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate_path, key_path) =
            (folder.path().join("server.crt"), folder.path().join("server.key"));
        let code = || match load(&certificate_path, &key_path, NOW, &provider()) {
            Ok(_) => "fit",
            Err(problem) => problem.code,
        };
        let (certificate, key) = make(&["a.test"], (2020, 2040));
        assert_eq!(code(), "certificate_missing");
        fs::create_dir(&certificate_path).unwrap();
        assert_eq!(code(), "certificate_unreadable");
        fs::remove_dir(&certificate_path).unwrap();
        fs::write(&certificate_path, certificate).unwrap();
        assert_eq!(code(), "key_missing");
        fs::write(&key_path, key).unwrap();
        for (mode, expected) in
            [(0o640, "key_permissions"), (0o604, "key_permissions"), (0o600, "fit"), (0o400, "fit")]
        {
            fs::set_permissions(&key_path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(code(), expected, "{mode:o}");
        }
    }

    #[test]
    fn names_cover_one_label_more_and_addresses_exactly() {
        let (certificate, key) =
            make(&["*.yesterday.localhost", "LOCALHOST", "127.0.0.1", "::1"], (2020, 2040));
        let pair = judge(
            (Path::new("c"), certificate.as_bytes()),
            (Path::new("k"), key.as_bytes()),
            NOW,
            &provider(),
        )
        .unwrap();
        for (host, covered) in [
            ("hello.yesterday.localhost", true),
            ("a.b.yesterday.localhost", false),
            ("yesterday.localhost", false),
            (".yesterday.localhost", false),
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::1", true),
            ("", false),
        ] {
            assert_eq!(pair.names.covers(host), covered, "{host}");
        }
    }
}
