//! The gRPC server of a daemon: its service, health and reflection on the inherited Unix socket, all behind the gate.

use std::{convert::Infallible, sync::Arc, time::Duration};

use nexushub_launch::Fault;
use serde::Deserialize;
use tokio::{net::UnixListener, sync::Semaphore};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{body::Body, server::NamedService, service::Routes, transport::Server};
use tower::Service;
use tracing::warn;

use crate::{gate::Gate, shutdown::Shutdown};

/// Pause after a failed accept: out of descriptors, the next one would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The table `[rpc]`: bounds of every daemon's gRPC socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rpc {
    /// Connections open at once; a further one waits in the socket's backlog.
    pub max_connections: usize,
    /// Calls open at once, streams among them; a further one is answered RESOURCE_EXHAUSTED.
    pub max_calls: usize,
    /// Milliseconds until the head of an answer, where the caller asks for no less.
    pub call_timeout_ms: u64,
    /// Milliseconds that open calls are given to end when the daemon drains.
    pub drain_ms: u64,
}

impl Default for Rpc {
    fn default() -> Self {
        Self { max_connections: 256, max_calls: 512, call_timeout_ms: 30_000, drain_ms: 2_000 }
    }
}

/// Everything a server is made of, before the daemon's own service is added.
pub(crate) struct Parts<H> {
    pub(crate) gate: Gate,
    pub(crate) health: H,
    pub(crate) listener: UnixListener,
    pub(crate) shutdown: Shutdown,
    pub(crate) rpc: Rpc,
}

/// Serves until the drain is over. Streams that never end by themselves are cut when `drain_ms` have passed.
pub(crate) async fn serve<S, H>(service: S, parts: Parts<H>) -> Result<(), Fault>
where
    S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
    H: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    H::Response: axum::response::IntoResponse,
    H::Future: Send + 'static,
{
    let routes = with_reflection::<S>(Routes::new(service).add_service(parts.health))?;
    let incoming = bounded(parts.listener, parts.rpc.max_connections);
    let draining = parts.shutdown.clone();
    let server = Server::builder()
        .layer(parts.gate)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move { draining.draining().await });
    let cut = async {
        parts.shutdown.draining().await;
        tokio::time::sleep(Duration::from_millis(parts.rpc.drain_ms)).await;
    };
    tokio::select! {
        ended = server => ended.map_err(|error| fault(&error)),
        () = cut => Ok(()),
    }
}

fn fault(error: &dyn std::error::Error) -> Fault {
    Fault::new("rpc_failed", format!("the gRPC server ended: {error}"), "grpc", "see the log above")
}

fn with_reflection<S: NamedService>(routes: Routes) -> Result<Routes, Fault> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(nexushub_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(S::NAME)
            .with_service_name("grpc.health.v1.Health")
    };
    let v1 = builder().with_service_name("grpc.reflection.v1.ServerReflection").build_v1();
    let v1alpha = builder().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha();
    Ok(routes
        .add_service(v1.map_err(|error| fault(&error))?)
        .add_service(v1alpha.map_err(|error| fault(&error))?))
}

/// Accepts no more connections than `limit` at once, and never ends over a failed accept.
fn bounded(listener: UnixListener, limit: usize) -> impl Stream<Item = Result<Connection, Infallible>> {
    let places = Arc::new(Semaphore::new(limit));
    let accepted = UnixListenerStream::new(listener).then(|accepted| async {
        if let Err(error) = &accepted {
            warn!(%error, "could not accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    });
    accepted.filter_map(Result::ok).then(move |stream| {
        let places = Arc::clone(&places);
        async move {
            let place = places.acquire_owned().await.expect("the semaphore is never closed");
            Ok(Connection { stream, _place: place })
        }
    })
}

use connection::Connection;

mod connection {
    //! A Unix connection that holds one of the bounded places.

    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf},
        net::UnixStream,
        sync::OwnedSemaphorePermit,
    };
    use tonic::transport::server::{Connected, UdsConnectInfo};

    pub(super) struct Connection {
        pub(super) stream: UnixStream,
        pub(super) _place: OwnedSemaphorePermit,
    }

    impl Connected for Connection {
        type ConnectInfo = UdsConnectInfo;

        fn connect_info(&self) -> UdsConnectInfo {
            self.stream.connect_info()
        }
    }

    impl AsyncRead for Connection {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Connection {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}

#[cfg(test)]
mod tests;
