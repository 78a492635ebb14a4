//! WebSocket over HTTP/2 (RFC 8441): a client's extended CONNECT becomes the upgrade that an app of HTTP/1.1 knows, and once the
//! app has agreed, the stream becomes the connection.
//!
//! ```text
//! CONNECT, :protocol websocket -> GET, Upgrade: websocket, a key of ours -> 101 with that key's answer -> 200
//! then  client's DATA -> Client -> Tunnel -> app,   app -> Tunnel -> Client -> Socket -> DATA for the client
//! ```
//! Invariant: a client hears of success only if its app has agreed, since over HTTP/2 any 2xx says that.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use aws_lc_rs::{digest, rand};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request, response};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    task::JoinHandle,
};
use tokio_util::io::poll_read_buf;

use crate::{
    body::{RequestBody, ResponseBody},
    headers,
    refusal::Refusal,
    upgrade::Tunnel,
};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What a key is answered with is the digest of it and of this (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of the app's side that wait for the client's window.
const AHEAD: usize = 16 * 1024;

/// What an extended CONNECT asks to speak on its stream; kept among the extensions of a request.
#[derive(Debug, Clone)]
pub(crate) struct Protocol(pub(crate) Bytes);

/// A WebSocket that a client of HTTP/2 asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// What the client sends.
    from: RequestBody,
    /// What the app has to answer to the key that it is shown.
    accept: HeaderValue,
}

/// Makes of an extended CONNECT for a WebSocket the request that an app of HTTP/1.1 knows; anything else is left as it is.
pub(crate) fn take(parts: &mut request::Parts, body: &mut RequestBody) -> Option<Wanted> {
    let Protocol(name) = parts.extensions.get::<Protocol>()?;
    if !name.eq_ignore_ascii_case(WEBSOCKET.as_bytes()) {
        return None;
    }
    parts.extensions.remove::<Protocol>();
    parts.method = Method::GET;
    let mut nonce = [0; 16];
    // A key keeps caches from answering, and is no secret.
    let _ = rand::fill(&mut nonce);
    let key = base64(&nonce);
    let accept = accept(&key);
    parts.headers.insert(KEY, key);
    Some(Wanted { from: std::mem::replace(body, RequestBody::Empty), accept })
}

/// Refuses an extended CONNECT for anything else (RFC 9220 §3, which says so of both).
pub(crate) fn judge(parts: &request::Parts) -> Result<(), Refusal> {
    match parts.extensions.get::<Protocol>() {
        Some(_) => Err(not_here("Not Implemented: of other protocols only WebSocket is spoken here")),
        None => Ok(()),
    }
}

/// Where nobody takes a WebSocket.
pub(crate) fn not_here(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, text)
}

impl Wanted {
    /// The protocol, as the app is asked for it.
    pub(crate) fn protocol() -> HeaderValue {
        WEBSOCKET
    }

    /// Whether the app has read what it agrees to.
    pub(crate) fn is_agreed(&self, answer: &HeaderMap) -> bool {
        answer.get(ACCEPT) == Some(&self.accept)
    }

    /// The client's answer: from here on bytes are copied.
    pub(crate) fn open(self, parts: &mut response::Parts, tunnel: Tunnel) -> ResponseBody {
        headers::toward_client(&mut parts.headers, None);
        parts.headers.remove(ACCEPT);
        parts.status = StatusCode::OK;
        let (from, to) = duplex(AHEAD);
        let client = Client { from: self.from, piece: Bytes::new(), to };
        let copying = tokio::spawn(tunnel.run(client));
        ResponseBody::socket(Socket { from, room: BytesMut::new(), copying, ended: false })
    }
}

pub(crate) fn accept(key: &HeaderValue) -> HeaderValue {
    let mut text = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    text.update(key.as_bytes());
    text.update(GUID);
    base64(text.finish().as_ref())
}

fn base64(bytes: &[u8]) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let number = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { digit } else { b'=' });
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("these digits are printable ASCII")
}

/// The client's side as the tunnel reads and writes it.
struct Client {
    from: RequestBody,
    /// Of what was read, what was not taken yet.
    piece: Bytes,
    to: DuplexStream,
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match ready!(Pin::new(&mut this.from).poll_frame(cx)) {
                Some(frame) => this.piece = frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.piece.len().min(buf.remaining());
        buf.put_slice(&this.piece[..length]);
        this.piece.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.to).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

/// What an app says to a client, as a body. Each direction goes on for itself: the copying is a task of its own, which ends when
/// the client's stream does.
#[derive(Debug)]
pub(crate) struct Socket {
    from: DuplexStream,
    room: BytesMut,
    copying: JoinHandle<io::Result<()>>,
    ended: bool,
}

impl Socket {
    /// The next bytes; an error where the other side broke off.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.room.reserve(AHEAD / 2);
        if ready!(poll_read_buf(Pin::new(&mut self.from), cx, &mut self.room))? > 0 {
            return Poll::Ready(Some(Ok(self.room.split().freeze())));
        }
        self.ended = true;
        // Whoever copied has ended with an error, or else only that direction has ended.
        match Pin::new(&mut self.copying).poll(cx) {
            Poll::Ready(Ok(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(io::Error::other(error)))),
            Poll::Ready(Ok(Ok(()))) | Poll::Pending => Poll::Ready(None),
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_written_and_answered_as_the_standard_says() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xef\xbe\xad", "/+++rQ=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
        // RFC 6455 §1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_connect_for_a_websocket_becomes_an_upgrade_with_a_key_of_ours_and_no_other_does() {
        let asked = |protocol: Option<&'static str>| {
            let mut request = http::Request::connect("https://a.example/chat").header(KEY, "theirs");
            if let Some(name) = protocol {
                request = request.extension(Protocol(Bytes::from_static(name.as_bytes())));
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let wanted = take(&mut parts, &mut RequestBody::Empty);
            (parts, wanted)
        };
        let (parts, wanted) = asked(Some("WebSocket"));
        let wanted = wanted.unwrap();
        assert!(parts.method == Method::GET && judge(&parts).is_ok() && parts.headers[KEY] != "theirs");
        assert_eq!((parts.headers.get_all(KEY).iter().count(), parts.headers[KEY].len()), (1, 24));
        let answer = |accept: HeaderValue| HeaderMap::from_iter([(ACCEPT, accept)]);
        assert!(wanted.is_agreed(&answer(accept(&parts.headers[KEY]))));
        assert!(!wanted.is_agreed(&answer(accept(&HeaderValue::from_static("theirs")))));
        assert!(!wanted.is_agreed(&HeaderMap::new()));
        let (parts, wanted) = asked(Some("connect-udp"));
        assert!(wanted.is_none() && parts.method == Method::CONNECT);
        assert_eq!(judge(&parts).unwrap_err().status, 501);
        assert!(asked(None).1.is_none() && judge(&asked(None).0).is_ok());
    }
}
