//! HTTP/1.1 on the inherited Unix socket. Bounded: connections in number, a request's head in time. At the drain no new
//! connection is taken, idle ones are closed, and requests in flight get a little longer.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nexushub_chassis::shutdown::Shutdown;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{auth::Peer, linger::lingering};

/// What requests in flight get after the drain began.
const PATIENCE: Duration = Duration::from_secs(4);
const MAX_HEAD: usize = 64 << 10;

/// Bounds of the socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) header_timeout: Duration,
}

/// Serves until the drain is over.
pub(crate) async fn serve(listener: UnixListener, router: Router, bounds: Bounds, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accept = async {
            let place = place.await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        tokio::select! {
            () = shutdown.draining() => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = accept => match accepted {
                Ok((stream, _)) => {
                    let served = connection(stream, router.clone(), bounds.header_timeout, shutdown.clone());
                    connections.spawn(async move {
                        let _place = place;
                        served.await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: let some be closed
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(PATIENCE, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(cut = connections.len(), "cutting connections that did not end");
    }
}

async fn connection(stream: UnixStream, router: Router, header_timeout: Duration, shutdown: Shutdown) {
    let uid = stream.peer_cred().ok().map(|cred| cred.uid());
    let service = TowerToHyperService::new(
        router.layer(Extension(Peer(uid))).layer(middleware::map_request(lingering)),
    );
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.draining() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn said(socket: &std::path::Path, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        // A server that has heard enough may have closed already.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn garbage_and_half_requests_end_their_own_connection_only() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("http.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let router = Router::new()
            .route("/", get(|Extension(peer): Extension<Peer>| async move { format!("{:?}", peer.0) }));
        let bounds = Bounds { connections: 1, header_timeout: Duration::from_secs(1) };
        let (drain, shutdown) = Shutdown::by_hand();
        let served = tokio::spawn(serve(listener, router, bounds, shutdown));
        let huge = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 200_000]].concat();
        for garbage in [
            &b"\x16\x03\x01 garbage\r\n\r\n"[..],
            b"GET",
            b"GET / HTTP/1.1\r\nhost: x",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &huge,
        ] {
            assert!(!said(&socket, garbage).await.contains("200 OK"));
        }
        let answer = said(&socket, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&socket).unwrap());
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(&format!("{:?}", Some(uid))),
            "{answer}"
        );
        drain.send_replace(true);
        served.await.unwrap();
        assert!(UnixStream::connect(&socket).await.is_err(), "no longer listening");
    }
}
