//! Connections that leave HTTP: WebSocket and any other upgrade. Nothing is passed on before the backend has agreed; then
//! bytes are copied both ways until either side closes, and the other side gets a moment to finish.

use std::{io, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, copy, split},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{counters::Counters, h1::client::Wire, headers, pool::Hold};

/// The protocol that a request asks to change to, as it asks. HTTP/2 is not reached this way, and a request with a body
/// stays what it is: both are old ways to smuggle.
pub(crate) fn asked(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 || !headers::has_connection_option(&parts.headers, "upgrade") {
        return None;
    }
    let bodiless = parts.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !parts.headers.contains_key(TRANSFER_ENCODING);
    let mut values = parts.headers.get_all(UPGRADE).into_iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let protocol = value.as_bytes().to_ascii_lowercase();
    let allowed = !protocol.is_empty() && !protocol.starts_with(b"h2c") && !protocol.starts_with(b"http/");
    (bodiless && allowed && !protocol.contains(&b',')).then(|| value.clone())
}

/// Whether the backend changed to what was asked for.
pub(crate) fn agreed(asked: &HeaderValue, answer: &HeaderMap) -> bool {
    answer.get(UPGRADE).is_some_and(|taken| taken.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
}

/// A backend's side of a connection that was upgraded.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The connection, and what came of it after the agreement.
    pub(crate) wire: Wire,
    /// The request's place at the backend.
    pub(crate) hold: Hold,
    pub(crate) counters: Arc<Counters>,
    pub(crate) linger: Duration,
    /// The drain's limit is reached.
    pub(crate) end: CancellationToken,
}

impl Tunnel {
    /// Copies until either side has closed.
    pub(crate) async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let Self { wire, hold, counters, linger, end } = self;
        counters.upgrades_open.up();
        let outcome = end.run_until_cancelled(copy_all(client, wire, linger)).await;
        counters.upgrades_open.down();
        drop(hold);
        outcome.unwrap_or(Ok(()))
    }
}

async fn copy_all(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    wire: Wire,
    linger: Duration,
) -> io::Result<()> {
    let (backend, ahead) = wire.into_parts();
    client.write_all(&ahead).await?;
    client.flush().await?;
    both_ways(client, backend, linger).await
}

/// Copies both ways; when one direction has ended the other has `linger` to end too.
async fn both_ways<A, B>(one: A, other: B, linger: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_one, to_one) = split(one);
    let (from_other, to_other) = split(other);
    let mut out = std::pin::pin!(one_way(from_one, to_other));
    let mut back = std::pin::pin!(one_way(from_other, to_one));
    tokio::select! {
        ended = &mut out => {
            ended?;
            timeout(linger, back).await.unwrap_or(Ok(()))
        }
        ended = &mut back => {
            ended?;
            timeout(linger, out).await.unwrap_or(Ok(()))
        }
    }
}

async fn one_way<A, B>(mut from: ReadHalf<A>, mut to: WriteHalf<B>) -> io::Result<()>
where
    A: AsyncRead,
    B: AsyncWrite,
{
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    fn asks(headers: &[(&str, &str)], version: Version) -> Option<HeaderValue> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        asked(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn an_upgrade_is_asked_for_by_both_headers_and_without_a_body() {
        let both = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(asks(&both, Version::HTTP_11).unwrap(), "WebSocket");
        assert_eq!(asks(&both, Version::HTTP_10), None);
        assert_eq!(asks(&both, Version::HTTP_2), None);
        for headers in [
            vec![("upgrade", "websocket")],
            vec![("connection", "upgrade")],
            vec![("connection", "upgrade"), ("upgrade", "h2c")],
            vec![("connection", "upgrade"), ("upgrade", "HTTP/2.0")],
            vec![("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            vec![("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
            vec![("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "5")],
            vec![("connection", "upgrade"), ("upgrade", "websocket"), ("transfer-encoding", "chunked")],
            vec![("connection", "upgrade"), ("upgrade", "")],
        ] {
            assert_eq!(asks(&headers, Version::HTTP_11), None, "{headers:?}");
        }
    }

    #[test]
    fn the_backend_must_take_the_protocol_that_was_asked_for() {
        let websocket = HeaderValue::from_static("websocket");
        let answer = |value: &'static str| HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static(value))]);
        assert!(agreed(&websocket, &answer("WebSocket")));
        assert!(!agreed(&websocket, &answer("h2c")));
        assert!(!agreed(&websocket, &HeaderMap::new()));
    }

    #[tokio::test]
    async fn when_one_side_closes_what_it_still_gets_arrives_and_both_end() {
        let (mut client, front) = duplex(64);
        let (back, mut backend) = duplex(64);
        let copying = tokio::spawn(both_ways(front, back, Duration::from_secs(60)));
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        backend.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "ping");
        backend.write_all(b"pong").await.unwrap();
        drop(backend);
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "pingpong");
        copying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_side_that_never_closes_is_not_waited_for_beyond_the_linger() {
        let (client, front) = duplex(64);
        let (back, _backend) = duplex(64);
        drop(client);
        both_ways(front, back, Duration::ZERO).await.unwrap();
    }
}
