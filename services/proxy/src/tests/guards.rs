//! Hosts whose clients have to show a certificate: who gets in, who is told what, and that there is no way around.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::{rules::Rules, table::tests::running};

const OPEN: &str = "open.yesterday.localhost";

/// Who issues certificates to clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
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
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// A proxy with `HOST`, whose clients `authority` knows, and another host for everybody.
async fn guarded(backend: &Backend, authority: &Authority) -> Hub {
    let hub = Hub::start(calm()).await;
    let ca = hub.folder.path().join("clients.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    hub.route(vec![needs(&ca, backend), running("o1", "open", backend.port)]);
    hub
}

fn needs(ca: &std::path::Path, backend: &Backend) -> Entry {
    let rules = Rules { client_ca: Some(ca.to_path_buf()), ..Rules::default() };
    Entry { rules, ..running("h1", "hello", backend.port) }
}

fn client(hub: &Hub, shown: Option<Shown>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(hub.roots.clone());
    Arc::new(match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    })
}

async fn connect(hub: &Hub, config: &Arc<ClientConfig>, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(hub.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    patient(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}

/// Whether a connection comes to nothing; a client of TLS 1.3 hears of it when it reads.
async fn is_refused(hub: &Hub, config: &Arc<ClientConfig>, name: &str) -> bool {
    let Ok(stream) = connect(hub, config, name).await else { return true };
    let mut peer = Peer::new(stream);
    let _ = peer.stream.write_all(get("/public/a").as_bytes()).await;
    !peer.fill().await
}

#[tokio::test]
async fn a_client_with_a_certificate_of_the_right_authority_gets_in_and_its_app_hears_who_it_is() {
    let (backend, authority) = (Backend::start().await, Authority::new("clients"));
    let hub = guarded(&backend, &authority).await;
    let shown = authority.issue("anna, the first");
    let sha256 = nexushub_chassis::launch::secret::hex(&sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        &shown.0[0],
    )));
    let mut peer = Peer::new(connect(&hub, &client(&hub, Some(shown)), HOST).await.unwrap());
    let forged = "X-Client-Certificate-Subject: CN=admin\r\nX_Client_Certificate_SHA256: 0\r\n";
    peer.write(&format!("GET /public/a HTTP/1.1\r\nHost: {HOST}\r\n{forged}\r\n")).await;
    let mut app = backend.accept().await;
    let heard = app.head().await;
    assert_eq!(heard.field("x-client-certificate-subject"), Some("CN=anna\\, the first"));
    assert_eq!(heard.field("x-client-certificate-sha256"), Some(sha256.as_str()));
    assert!(!heard.head.contains("admin") && !heard.head.contains("x_client"));
    app.write(OK).await;
    assert_eq!(peer.message().await.status(), 200);
    peer.write(&format!("GET /public/a HTTP/1.1\r\nHost: {OPEN}\r\n\r\n")).await;
    let mut app = backend.accept().await;
    assert_eq!(app.head().await.field("x-client-certificate-subject"), None, "it did not ask");
}

#[tokio::test]
async fn a_client_without_a_certificate_or_with_a_strangers_gets_nowhere() {
    let (backend, authority) = (Backend::start().await, Authority::new("clients"));
    let hub = guarded(&backend, &authority).await;
    assert!(is_refused(&hub, &client(&hub, None), HOST).await);
    let stranger = Authority::new("clients").issue("anna");
    assert!(is_refused(&hub, &client(&hub, Some(stranger)), HOST).await);
    hub.until(|counters| counters.tls_failures.get(), 2).await;
    hub.route(vec![needs(&hub.folder.path().join("nobody.pem"), &backend)]);
    assert!(
        is_refused(&hub, &client(&hub, Some(authority.issue("anna"))), HOST).await,
        "without authorities"
    );
}

#[tokio::test]
async fn a_connection_that_was_opened_for_another_name_or_none_leads_to_no_guarded_host() {
    let (backend, authority) = (Backend::start().await, Authority::new("clients"));
    let hub = guarded(&backend, &authority).await;
    let config = client(&hub, Some(authority.issue("anna")));
    for (name, status) in [(OPEN, 421), ("127.0.0.1", 403)] {
        let mut peer = Peer::new(connect(&hub, &config, name).await.unwrap());
        peer.write(&get("/public/a")).await;
        assert_eq!(peer.message().await.status(), status, "{name}");
    }
    let other = hub.folder.path().join("other.pem");
    std::fs::write(&other, &authority.pem).unwrap();
    let mut peer = Peer::new(connect(&hub, &config, HOST).await.unwrap());
    hub.route(vec![needs(&other, &backend)]);
    peer.write(&get("/public/a")).await;
    assert_eq!(peer.message().await.status(), 421, "what it was verified by no longer counts");
}

#[tokio::test]
async fn no_session_is_resumed_past_the_question_for_a_certificate() {
    let (backend, authority) = (Backend::start().await, Authority::new("clients"));
    let hub = Hub::start(calm()).await;
    hub.route(vec![running("h1", "hello", backend.port)]);
    let config = client(&hub, None);
    for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let stream = connect(&hub, &config, HOST).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        let mut peer = Peer::new(stream);
        peer.write(&get("/nothing").replace(HOST, "nobody.yesterday.localhost")).await;
        assert_eq!(peer.message().await.status(), 404); // the ticket has come with it
    }
    let ca = hub.folder.path().join("clients.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    hub.route(vec![needs(&ca, &backend)]);
    assert!(is_refused(&hub, &config, HOST).await, "with a ticket from before");
    let config = client(&hub, Some(authority.issue("anna")));
    for _ in 0..2 {
        let stream = connect(&hub, &config, HOST).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let mut peer = Peer::new(stream);
        peer.write(&get("/nothing").replace(HOST, "nobody.yesterday.localhost")).await;
        assert_eq!(peer.message().await.status(), 404);
    }
}
