//! What a client hears in the handshake of the certificate's not being revoked (RFC 6066 §8, RFC 8446 §4.4.2.1).

use std::sync::Mutex;

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::UnixTime,
    version::{TLS12, TLS13},
};

use super::*;

/// Verifies as others do, and keeps what it was told.
#[derive(Debug)]
struct Listener {
    verifier: Arc<WebPkiServerVerifier>,
    heard: Mutex<Vec<u8>>,
}

impl ServerCertVerifier for Listener {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.heard.lock().unwrap() = staple.to_vec();
        self.verifier.verify_server_cert(certificate, chain, name, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The staple of a handshake of this version; empty if there is none.
async fn heard(hub: &Hub, version: &'static SupportedProtocolVersion) -> Vec<u8> {
    let roots = Arc::new(hub.roots.clone());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, tls::provider()).build().unwrap();
    let listener = Arc::new(Listener { verifier, heard: Mutex::default() });
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&listener) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let stream = TcpStream::connect(hub.address).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    patient(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap();
    std::mem::take(&mut *listener.heard.lock().unwrap())
}

#[tokio::test]
async fn a_staple_that_is_beside_the_certificate_is_heard_as_long_as_it_is_good() {
    let hub = Hub::start(calm()).await;
    let beside = certificate::staple_of(&hub.folder.path().join("server.crt"));
    let good = certificate::tests::ocsp(&[Some("20900101000000Z")]);
    let over = certificate::tests::ocsp(&[Some("20210101000000Z")]);
    for (staple, expected) in [(None, &[][..]), (Some(&good), &good), (Some(&over), &[]), (None, &[])] {
        match staple {
            Some(staple) => std::fs::write(&beside, staple).unwrap(),
            None => drop(std::fs::remove_file(&beside)),
        }
        hub.front.tls.shelf.take_up();
        for version in [&TLS12, &TLS13] {
            assert_eq!(heard(&hub, version).await, expected, "{version:?}");
        }
    }
}
