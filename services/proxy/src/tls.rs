//! TLS as the front speaks it: 1.2 and 1.3 by aws-lc-rs, h2 before http/1.1, sessions resumed by tickets without server state;
//! and, where the name that a client asks for wants that, with its certificate (`guard.rs`).

mod stream;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use nexushub_chassis::launch::clock::unix_ms;
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{Acceptor, NoClientAuth, ProducesTickets, ResolvesServerCert, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

pub(crate) use self::stream::Secured;
use crate::{
    clock,
    guard::{Guards, Verified},
    shelf::Shelf,
    tickets::Tickets,
    turns,
};

/// Shortest time between two looks at what handshakes are made with.
const LOOK_EVERY_MS: u64 = 1_000;

/// The cryptography in use. Of what a client has too the first is taken: AES of 128 bits, which is as safe as any and the fastest.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    Arc::new(provider)
}

/// The wall clock, in seconds.
pub(crate) fn now_unix() -> i64 {
    unix_ms(SystemTime::now()) / 1000
}

/// The server's side of a handshake, without resumption by tickets; `clients` says whose certificates it asks for.
pub(crate) fn config(
    shelf: Arc<Shelf>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(clients.unwrap_or_else(|| Arc::new(NoClientAuth)))
        .with_cert_resolver(shelf as Arc<dyn ResolvesServerCert>);
    config.ignore_client_order = true; // ours, which every judge of servers asks for
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What handshakes are made with.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    guards: Arc<Guards>,
    pub(crate) shelf: Arc<Shelf>,
    tickets: Arc<Tickets>,
    /// When the next look is due, by `clock`.
    due_ms: AtomicU64,
}

impl Tls {
    /// The server's side of every handshake, with these certificates and keys.
    pub(crate) fn new(shelf: Shelf, tickets: Tickets) -> Result<Self, rustls::Error> {
        let (shelf, tickets) = (Arc::new(shelf), Arc::new(tickets));
        let mut config = config(Arc::clone(&shelf), None)?;
        config.ticketer = Arc::clone(&tickets) as Arc<dyn ProducesTickets>;
        let guards = Arc::new(Guards::new(Arc::clone(&shelf)));
        Ok(Self { config: Arc::new(config), guards, shelf, tickets, due_ms: AtomicU64::new(0) })
    }

    /// Shakes hands with a client, and learns who it proves to be where the name that it asks for wants to know: `ca_of` says by
    /// which authorities.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        ca_of: impl FnOnce(&str) -> Option<PathBuf>,
    ) -> io::Result<(Secured, Option<Verified>)> {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let ca = begun.client_hello().server_name().and_then(ca_of);
        let config = match &ca {
            Some(ca) => self.guarded_by(ca).await?,
            None => Arc::clone(&self.config),
        };
        let shaking = {
            let _turn = turns::next().await;
            begun.into_stream(config) // keys are agreed on and signed for: nothing else takes a worker as long
        };
        let stream = Secured::new(shaking.await?);
        let shown = stream.session().peer_certificates().and_then(|chain| chain.first());
        let verified = ca.zip(shown).and_then(|(ca, shown)| Verified::by(ca, shown));
        Ok((stream, verified))
    }

    /// What hands are shaken with where clients show certificates of these authorities, which are read if they aren't known yet.
    async fn guarded_by(&self, ca: &Path) -> io::Result<Arc<ServerConfig>> {
        if let Some(config) = self.guards.known(ca) {
            return Ok(config);
        }
        let (guards, ca) = (Arc::clone(&self.guards), ca.to_path_buf());
        let learnt = tokio::task::spawn_blocking(move || guards.learn(&ca)).await;
        let unfit =
            || io::Error::other("there are no authorities by which its certificate could be verified");
        learnt.ok().flatten().ok_or_else(unfit)
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
            let guards = Arc::clone(&self.guards);
            tokio::task::spawn_blocking(move || {
                shelf.take_up();
                guards.take_up();
                tickets.tend(now_unix());
            });
        }
    }
}
