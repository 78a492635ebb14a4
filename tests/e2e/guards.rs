//! Hosts whose clients have to show a certificate (`client_ca`): who gets in, who is told of it, and who is not asked.

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{App, Https, Platform, Protocol, https::Shown};
use nexushub_proto::provider::{Instance, Route};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

const GUARDED: &str = "guarded";
const OPEN: &str = "open";

/// Who issues certificates to clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "clients");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }
}

/// Whether a client comes to nothing at a host, whatever it speaks; one of TLS 1.3 hears of it when it reads.
async fn is_refused(https: &Https, host: &str) -> bool {
    let mut refused = true;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        refused &=
            https.send(protocol, host, Request::get("/").body(Full::default()).unwrap()).await.is_err();
    }
    refused
}

/// Whether the app answers a client there.
async fn is_served(https: &Https, host: &str) -> bool {
    let request = Request::get("/").body(Full::default()).unwrap();
    https.send(Protocol::Http1, host, request).await.is_ok_and(|answer| answer.status == 200)
}

/// Who a client is, as the app hears.
async fn subject(https: &Https, host: &str) -> Option<String> {
    let forged = Request::get("/").header("x-client-certificate-subject", "CN=admin");
    let answer = https.send(Protocol::Http1, host, forged.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let headers = answer.json()["headers"].as_array().unwrap().clone();
    let subject = headers.iter().find(|header| header[0] == "x-client-certificate-subject")?;
    subject[1].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_host_serves_whom_its_authority_knows_and_tells_its_app_who_that_is() {
    let platform = Platform::start();
    let (authority, open) = (Authority::new(), platform.run_app(&App::named(OPEN)).await);
    let ca = platform.home.path().join("clients.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let route = Route { client_ca: ca.display().to_string(), ..Route::default() };
    let guarded = Instance { route: Some(route), ..platform.instance(&App::named(GUARDED)) };
    platform.put(guarded).await.unwrap();
    platform.running(GUARDED).await;
    let anna = platform.https().showing(authority.issue("anna"));
    let served = async { while !is_served(&anna, GUARDED).await {} };
    nexushub_e2e::soon("the table knows the guarded host", served).await;
    assert_eq!(subject(&anna, GUARDED).await.as_deref(), Some("CN=anna"));
    assert!(is_refused(&platform.https(), GUARDED).await, "nothing is shown");
    let stranger = platform.https().showing(Authority::new().issue("anna"));
    assert!(is_refused(&stranger, GUARDED).await, "another authority of the same name");
    assert_eq!(subject(&anna, OPEN).await, None, "it does not ask, and believes nobody's word");
    assert_eq!(platform.https().get(OPEN, "/").await.json()["pid"], open.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_way_to_a_guarded_host_by_another_ones_connection() {
    let platform = Platform::start();
    platform.run_app(&App::named(OPEN)).await;
    let ca = platform.home.path().join("clients.pem");
    std::fs::write(&ca, Authority::new().pem).unwrap();
    let route = Route { client_ca: ca.display().to_string(), ..Route::default() };
    let guarded = Instance { route: Some(route), ..platform.instance(&App::named(GUARDED)) };
    platform.put(guarded).await.unwrap();
    platform.running(GUARDED).await;
    let https = platform.https();
    let status = async || {
        let by_another = Request::get("/").header("host", https.authority(GUARDED));
        let answer = https.send(Protocol::Http1, OPEN, by_another.body(Full::default()).unwrap()).await;
        answer.unwrap().status
    };
    let known = async { while status().await == 404 {} };
    nexushub_e2e::soon("the table knows the guarded host", known).await;
    assert_eq!(status().await, 421);
}
