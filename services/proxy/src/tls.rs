//! TLS as the front speaks it: 1.2 and 1.3 by aws-lc-rs, h2 before http/1.1, sessions resumed by tickets without server state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use nexushub_chassis::launch::clock::unix_ms;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ProducesTickets, ResolvesServerCert},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

use crate::{clock, shelf::Shelf, tickets::Tickets};

/// Shortest time between two looks at what handshakes are made with.
const LOOK_EVERY_MS: u64 = 1_000;

/// The cryptography in use.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The wall clock, in seconds.
pub(crate) fn now_unix() -> i64 {
    unix_ms(SystemTime::now()) / 1000
}

/// What handshakes are made with.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) shelf: Arc<Shelf>,
    tickets: Arc<Tickets>,
    /// When the next look is due, by `clock`.
    due_ms: AtomicU64,
}

impl Tls {
    /// The server's side of every handshake, with these certificates and keys.
    pub(crate) fn new(shelf: Shelf, tickets: Tickets) -> Result<Self, rustls::Error> {
        let (shelf, tickets) = (Arc::new(shelf), Arc::new(tickets));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&shelf) as _;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ignore_client_order = true; // the strongest that both have
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&tickets) as Arc<dyn ProducesTickets>;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, shelf, tickets, due_ms: AtomicU64::new(0) })
    }

    /// Has certificates and keys looked after on another thread, if that is due. Called by who connects, after its own
    /// handshake: nothing wakes up for it.
    pub(crate) fn look(&self) {
        let (now, due) = (clock::now_ms(), self.due_ms.load(Ordering::Relaxed));
        let mine = || {
            let next = now + LOOK_EVERY_MS;
            self.due_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if now >= due && mine() {
            let (shelf, tickets) = (Arc::clone(&self.shelf), Arc::clone(&self.tickets));
            tokio::task::spawn_blocking(move || {
                shelf.take_up();
                tickets.tend(now_unix());
            });
        }
    }
}
