//! `nexushub certs`: a development CA, and a certificate from it for the platform's names.
//!
//! Idempotent: what is good is kept, byte for byte. The CA is made once (ten years; its name constraints let it speak for the base
//! domain, localhost and the loopback addresses only, so that trusting it gives nothing else away); the server's certificate
//! (one year) again when it is missing, about to expire, or doesn't fit. A certificate that this CA did not issue is left alone.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nexushub_launch::durable;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    args::Certs,
    failure::{Failure, OK},
    out,
};

const CA_YEARS: i16 = 10;
const SERVER_DAYS: i32 = 365;
/// What expires within this time is made anew.
const MARGIN: Duration = Duration::from_secs(30 * 86_400);
/// Longest base domain: below it there is room for a label.
const DOMAIN_MAX: usize = 189;

/// The four files.
struct Files {
    ca_crt: PathBuf,
    ca_key: PathBuf,
    server_crt: PathBuf,
    server_key: PathBuf,
}

/// What is to be done about the server's certificate.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Good,
    Missing,
    /// Ours, and of no more use.
    Stale(String),
    /// Not ours.
    Foreign,
}

/// `nexushub certs`
pub(crate) fn run(args: &Certs) -> Result<u8, Failure> {
    let domain = judge_domain(&args.domain)?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&args.dir);
    made.map_err(|error| Failure::io("make", &args.dir, &error))?;
    let file = |name: &str| args.dir.join(name);
    let files = Files {
        ca_crt: file("ca.crt"),
        ca_key: file("ca.key"),
        server_crt: file("server.crt"),
        server_key: file("server.key"),
    };
    for line in make(&files, &domain, SystemTime::now())? {
        out::say(&line)?;
    }
    Ok(OK)
}

/// Makes what is missing or stale, and says what was done.
fn make(files: &Files, domain: &str, now: SystemTime) -> Result<Vec<String>, Failure> {
    let mut done = Vec::new();
    if !files.ca_crt.exists() {
        if files.server_crt.exists() {
            return Err(foreign(files));
        }
        make_ca(files, domain)?;
        done.push(format!("made {}: to be trusted by clients", files.ca_crt.display()));
    }
    let found = look(files, domain, now)?;
    let why = match found {
        Found::Good => {
            done.push(format!("{} is good", files.server_crt.display()));
            return Ok(done);
        }
        Found::Foreign => return Err(foreign(files)),
        Found::Missing => String::new(),
        Found::Stale(why) => format!(" anew ({why})"),
    };
    make_server(files, domain)?;
    match look(files, domain, now)? {
        Found::Good => {}
        other => {
            let hint = "the CA may be one for another domain, or expired: use another folder, or remove all four files";
            let message = format!("{} can't speak for {domain} ({other:?})", files.ca_crt.display());
            return Err(Failure::new(message, hint));
        }
    }
    done.push(format!("made {}{why}: for {}", files.server_crt.display(), names(domain).join(", ")));
    Ok(done)
}

fn foreign(files: &Files) -> Failure {
    let message = format!("{} was not issued by {}", files.server_crt.display(), files.ca_crt.display());
    Failure::new(message, "it is left as it is; for development certificates use another folder")
}

/// The names that the certificate is for.
fn names(domain: &str) -> Vec<String> {
    let own = [format!("*.{domain}"), format!("*.debug.{domain}"), domain.to_owned(), "localhost".to_owned()];
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    own.into_iter().chain(addresses.map(|ip| ip.to_string())).collect()
}

fn judge_domain(domain: &str) -> Result<String, Failure> {
    let label = |label: &str| {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() > DOMAIN_MAX || !domain.split('.').all(label) {
        return Err(Failure::usage("--domain is not a domain name", "use lower-case labels joined by dots"));
    }
    Ok(domain.to_owned())
}

fn look(files: &Files, domain: &str, now: SystemTime) -> Result<Found, Failure> {
    if !files.server_crt.exists() {
        return Ok(Found::Missing);
    }
    let (ca, server) = (certificate(&files.ca_crt)?, certificate(&files.server_crt)?);
    let parsed = |der: &CertificateDer<'_>, path: &Path| {
        let parsed = X509Certificate::from_der(der).map(|(_, parsed)| {
            (
                parsed.subject().as_raw().to_vec(),
                parsed.issuer().as_raw().to_vec(),
                parsed.validity().not_after.timestamp(),
            )
        });
        parsed.map_err(|error| {
            Failure::new(format!("{} is no certificate: {error}", path.display()), "remove it")
        })
    };
    let (ca_subject, _, ca_end) = parsed(&ca, &files.ca_crt)?;
    let (_, issuer, _) = parsed(&server, &files.server_crt)?;
    if issuer != ca_subject {
        return Ok(Found::Foreign);
    }
    let then = (now + MARGIN).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if ca_end < i64::try_from(then.as_secs()).unwrap_or(i64::MAX) {
        return Ok(Found::Stale("the CA is about to expire".to_owned()));
    }
    if let Err(why) = verify(ca, &server, domain, UnixTime::since_unix_epoch(then)) {
        return Ok(Found::Stale(why));
    }
    Ok(match key_fits(&files.server_key, server) {
        Ok(()) => Found::Good,
        Err(why) => Found::Stale(why),
    })
}

/// Whether clients that trust the CA will take the certificate for each of the names, at that time.
fn verify(
    ca: CertificateDer<'_>,
    server: &CertificateDer<'_>,
    domain: &str,
    then: UnixTime,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.into_owned()).map_err(|error| error.to_string())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    for name in names(domain) {
        let name = name.replace('*', "x");
        let server_name = ServerName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        let verified = verifier.verify_server_cert(server, &[], &server_name, &[], then);
        verified.map_err(|error| format!("for {name}: {error}"))?;
    }
    Ok(())
}

fn key_fits(path: &Path, server: CertificateDer<'static>) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| format!("its key: {error}"))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| format!("its key: {error}"))?;
    CertifiedKey::new(vec![server], key).keys_match().map_err(|_| "its key is another's".to_owned())
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, Failure> {
    CertificateDer::from_pem_file(path).map_err(|error| {
        let hint = "remove it together with its key, and run this again";
        Failure::new(format!("could not read a certificate from {}: {error}", path.display()), hint)
    })
}

fn make_ca(files: &Files, domain: &str) -> Result<(), Failure> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("NexusHub development CA for {domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let v4 = CidrSubnet::from_v4_prefix(Ipv4Addr::LOCALHOST.octets(), 32);
    let v6 = CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128);
    let dns = [domain, "localhost"].map(|name| GeneralSubtree::DnsName(name.to_owned()));
    let permitted = dns.into_iter().chain([v4, v6].map(GeneralSubtree::IpAddress)).collect();
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() });
    valid_for(&mut params, i32::from(CA_YEARS) * 365);
    let key = KeyPair::generate().map_err(|error| unmade(&files.ca_crt, &error))?;
    let made = params.self_signed(&key).map_err(|error| unmade(&files.ca_crt, &error))?;
    write(&files.ca_key, &key.serialize_pem(), 0o600)?;
    write(&files.ca_crt, &made.pem(), 0o644)
}

fn make_server(files: &Files, domain: &str) -> Result<(), Failure> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| {
            let hint = "without the CA's key it can't issue: remove ca.crt and server.crt to make all anew";
            Failure::new(format!("could not read {}: {error}", path.display()), hint)
        })
    };
    let bad = |error| unmade(&files.server_crt, &error);
    let ca_key = KeyPair::from_pem(&read(&files.ca_key)?).map_err(bad)?;
    let issuer = Issuer::from_ca_cert_pem(&read(&files.ca_crt)?, ca_key).map_err(bad)?;
    let mut params = CertificateParams::new(names(domain)).map_err(bad)?;
    params.distinguished_name.push(DnType::CommonName, domain);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, SERVER_DAYS);
    let key = KeyPair::generate().map_err(bad)?;
    let made = params.signed_by(&key, &issuer).map_err(bad)?;
    // The key first: whoever sees the new certificate finds its key.
    write(&files.server_key, &key.serialize_pem(), 0o600)?;
    write(&files.server_crt, &made.pem(), 0o644)
}

/// From yesterday on, for clocks that are behind.
fn valid_for(params: &mut CertificateParams, days: i32) {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date();
    let day = |offset: i32| {
        let date = today.saturating_add(jiff::Span::new().days(offset));
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

fn unmade(path: &Path, error: &rcgen::Error) -> Failure {
    Failure::new(
        format!("could not make {}: {error}", path.display()),
        "remove damaged files and run this again",
    )
}

fn write(path: &Path, pem: &str, mode: u32) -> Result<(), Failure> {
    durable::write(path, pem.as_bytes(), mode).map_err(|error| Failure::io("write", path, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const DOMAIN: &str = "yesterday.localhost";

    fn files(folder: &Path) -> Files {
        let file = |name: &str| folder.join(name);
        Files {
            ca_crt: file("ca.crt"),
            ca_key: file("ca.key"),
            server_crt: file("server.crt"),
            server_key: file("server.key"),
        }
    }

    fn contents(files: &Files) -> Vec<Vec<u8>> {
        [&files.ca_crt, &files.ca_key, &files.server_crt, &files.server_key]
            .map(|path| fs::read(path).unwrap())
            .into()
    }

    #[test]
    fn the_certificate_is_good_for_every_name_and_only_the_owner_reads_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        make(&files, DOMAIN, SystemTime::now()).unwrap();
        assert_eq!(look(&files, DOMAIN, SystemTime::now()).unwrap(), Found::Good);
        for key in [&files.ca_key, &files.server_key] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_good_is_kept_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        make(&files, DOMAIN, SystemTime::now()).unwrap();
        let before = contents(&files);
        make(&files, DOMAIN, SystemTime::now()).unwrap();
        assert_eq!(contents(&files), before);
    }

    #[test]
    fn an_expiring_certificate_is_made_anew_and_the_ca_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        make(&files, DOMAIN, SystemTime::now()).unwrap();
        let before = contents(&files);
        let later = SystemTime::now() + Duration::from_secs(340 * 86_400);
        assert!(matches!(look(&files, DOMAIN, later).unwrap(), Found::Stale(_)));
        fs::remove_file(&files.server_key).unwrap();
        make(&files, DOMAIN, SystemTime::now()).unwrap();
        let after = contents(&files);
        assert_eq!(before[..2], after[..2]);
        assert!(before[2] != after[2] && before[3] != after[3]);
    }

    #[test]
    fn the_ca_speaks_for_its_domain_only() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        make(&files, DOMAIN, SystemTime::now()).unwrap();
        assert!(make(&files, "example.com", SystemTime::now()).is_err());
    }

    #[test]
    fn a_certificate_of_somebody_else_is_left_alone() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, theirs) = (files(ours.path()), files(theirs.path()));
        fs::create_dir_all(ours.ca_crt.parent().unwrap()).unwrap();
        fs::create_dir_all(theirs.ca_crt.parent().unwrap()).unwrap();
        make(&theirs, "other.localhost", SystemTime::now()).unwrap();
        fs::copy(&theirs.server_crt, &ours.server_crt).unwrap();
        assert!(make(&ours, DOMAIN, SystemTime::now()).unwrap_err().message.contains("was not issued by"));
        make_ca(&ours, DOMAIN).unwrap();
        assert!(make(&ours, DOMAIN, SystemTime::now()).is_err());
        assert_eq!(fs::read(&ours.server_crt).unwrap(), fs::read(&theirs.server_crt).unwrap());
    }

    #[test]
    fn what_is_no_domain_is_wrong_usage() {
        for bad in ["", ".", "A.b", "a b", "*.x", "-a", "x/../y", &"a".repeat(64)] {
            assert_eq!(judge_domain(bad).unwrap_err().code, crate::failure::USAGE, "{bad}");
        }
        assert!(judge_domain(DOMAIN).is_ok());
    }
}
