//! TLS as the front speaks it: 1.2 and 1.3 by aws-lc-rs, h2 before http/1.1, tickets without server state.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::ResolvesServerCert,
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use crate::shelf::Shelf;

/// The cryptography in use.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What handshakes are made with.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) shelf: Arc<Shelf>,
}

impl Tls {
    /// The server's side of every handshake, with the certificates of this shelf.
    pub(crate) fn new(shelf: Shelf) -> Result<Self, rustls::Error> {
        let shelf = Arc::new(shelf);
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&shelf) as _;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), shelf })
    }
}
