//! Messages of HTTP/1.1, both ways.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, Method, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
    request, response,
};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Fields, at_once, fields};
use crate::h1::{
    Limits, Malformed,
    channel::Shared,
    decode::{Decoder, Item},
    framing::{self, Length},
    head,
    lines::Scan,
    outgoing::Outgoing,
};
use crate::h2::fuzzing;

pub(super) const LIMITS: Limits = Limits { head_bytes: 2048, fields: 32, target_bytes: 512 };
/// What is written out has room for what is said in more words.
const ROOMY: Limits = Limits { head_bytes: 64 * 1024, fields: 128, target_bytes: 4096 };

/// What says how a message goes, not what it is.
const OF_THE_HOP: [HeaderName; 4] = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE];

/// Bytes in pieces, whose size is the first of them.
fn pieces(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let Some((size, rest)) = bytes.split_first() else { return (Vec::new(), bytes) };
    (rest.chunks(1 + usize::from(size % 23)).collect(), rest)
}

/// A client that says one piece after the other and hangs up.
struct Client(VecDeque<Bytes>);

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let length = piece.len().min(to.remaining());
            to.put_slice(&piece.split_to(length));
            if !piece.has_remaining() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// It has ended.
    whole: bool,
}

impl Content {
    fn take(&mut self, item: Item) -> bool {
        match item {
            Item::Data(data) => self.data.extend_from_slice(&data),
            Item::Trailers(trailers) => self.trailers = Some(trailers),
            Item::End => self.whole = true,
            Item::Starved => return false,
        }
        !self.whole
    }

    /// What of it another reader gets.
    fn said(&self) -> (&[u8], bool, Fields) {
        let trailers = self.trailers.as_ref().map(|trailers| fields(trailers, &OF_THE_HOP));
        (&self.data, self.whole, trailers.unwrap_or_default())
    }

    /// It is as long as was said.
    fn holds(&self, length: Length, bytes: usize) {
        match length {
            Length::Exact(said) if self.whole => assert_eq!(self.data.len() as u64, said),
            Length::Exact(said) => assert!((self.data.len() as u64) < said),
            Length::Chunked | Length::UntilClose => assert!(self.data.len() <= bytes),
        }
    }
}

/// A body that was read, to be sent.
struct Replay {
    content: Content,
    said: Option<u64>,
}

impl Body for Replay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = std::mem::take(&mut self.content.data);
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(data.into()))));
        }
        Poll::Ready(self.content.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.said == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.said.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Replay {
    fn of(content: &Content, length: Length) -> Self {
        let said = if let Length::Exact(said) = length { Some(said) } else { None };
        Self { content: content.clone(), said }
    }
}

/// What goes out.
fn written<B: Body<Data = Bytes> + Unpin>(mut message: Outgoing<B>) -> Vec<u8> {
    let mut out = Vec::new();
    let done = at_once(std::future::poll_fn(|cx| message.poll_drive(&mut out, cx).map(|done| done.is_ok())));
    assert!(done, "a whole message was not sent whole");
    out
}

/// A request as it was read.
#[derive(Debug)]
struct Asked {
    parts: request::Parts,
    length: Length,
    content: Content,
}

/// All requests of a connection, and whether it ended in something that is none.
fn conversation(pieces: &[&[u8]], limits: Limits) -> (Vec<Asked>, bool) {
    let total = pieces.iter().map(|piece| piece.len()).sum();
    let client = Client(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect());
    let (channel, mut all) = (Shared::new(client, limits), Vec::new());
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let head = channel.lock().poll_head(&mut cx);
        let head = match head {
            Poll::Ready(Ok(Some(Ok(head)))) => head,
            // Half a head is no request, whether it was refused before its end was missed or not.
            Poll::Ready(Ok(None)) => return (all, channel.lock().has_bytes()),
            _ => return (all, true),
        };
        let read = head::request(&head, &limits).and_then(|parts| {
            let length = framing::of_request(parts.version, &parts.headers)?;
            Ok((parts, length))
        });
        let Ok((parts, length)) = read else { return (all, true) };
        channel.lock().begin_body(length, false);
        let (mut body, mut content) = (channel.body(), Content::default());
        let broke = loop {
            let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut cx) else { break true };
            match frame.transpose().map(|frame| frame.map(Frame::into_data)) {
                Ok(None) => break false,
                Ok(Some(Ok(data))) => content.data.extend_from_slice(&data),
                Ok(Some(Err(frame))) => content.trailers = frame.into_trailers().ok(),
                Err(_) => break true,
            }
        };
        content.whole = !broke;
        content.holds(length, total);
        all.push(Asked { parts, length, content });
        if broke {
            return (all, true);
        }
    }
}

fn same(one: &Asked, other: &Asked) {
    let line = |asked: &Asked| {
        let target = asked.parts.uri.path_and_query().map_or("/", |target| target.as_str());
        (asked.parts.method.clone(), target.to_owned())
    };
    assert_eq!(line(one), line(other));
    let read = |asked: &Asked| fields(&asked.parts.headers, &OF_THE_HOP);
    assert_eq!(read(one), read(other));
    assert_eq!(one.content.said(), other.content.said());
}

/// What a client says, one request after the other.
pub(super) fn requests(bytes: &[u8]) {
    let (pieces, bytes) = pieces(bytes);
    let (whole, broke) = conversation(&[bytes], LIMITS);
    let (cut, cut_broke) = conversation(&pieces, LIMITS);
    assert_eq!((whole.len(), broke), (cut.len(), cut_broke), "pieces make a difference");
    for (one, other) in whole.iter().zip(&cut) {
        if one.content.whole {
            same(one, other);
        }
    }
    for asked in whole.iter().filter(|asked| asked.content.whole) {
        let out = written(Outgoing::request(&asked.parts, &[], Replay::of(&asked.content, asked.length)));
        let (again, broke) = conversation(&[&out], ROOMY);
        assert!(again.len() == 1 && !broke, "sent as {:?}", out.escape_ascii().to_string());
        same(asked, &again[0]);
    }
}

/// What a client says by HTTP/2: each of its requests is one of HTTP/1.1, too, with the same content.
pub(super) fn streams(bytes: &[u8]) {
    let (pieces, bytes) = pieces(bytes);
    let (whole, cut) = (fuzzing::hear(&[bytes], LIMITS), fuzzing::hear(&pieces, LIMITS));
    assert_eq!((whole.ended, whole.said), (cut.ended, cut.said), "pieces make a difference");
    assert_eq!(whole.asked.len(), cut.asked.len(), "pieces make a difference");
    for asked in whole.asked.into_iter().filter(|asked| asked.whole && asked.parts.method != Method::CONNECT)
    {
        let said = framing::content_length(&asked.parts.headers).unwrap_or_default();
        let length = match said.or((!asked.has_body).then_some(0)) {
            Some(said) => Length::Exact(said),
            None => Length::Chunked,
        };
        let content = Content { data: asked.data, trailers: asked.trailers, whole: true };
        content.holds(length, bytes.len());
        // A body whose length was said has no place for what follows it.
        let content = Content { trailers: content.trailers.filter(|_| length == Length::Chunked), ..content };
        let asked = Asked { parts: asked.parts, length, content };
        let out = written(Outgoing::request(&asked.parts, &[], Replay::of(&asked.content, asked.length)));
        let (again, broke) = conversation(&[&out], ROOMY);
        assert!(again.len() == 1 && !broke, "sent as {:?}", out.escape_ascii().to_string());
        same(&asked, &again[0]);
    }
}

/// An answer as it was read, and how many bytes of what came it took.
struct Answered {
    parts: response::Parts,
    length: Length,
    content: Content,
    taken: usize,
}

fn answered(method: &Method, pieces: &[&[u8]], limits: Limits) -> Result<Option<Answered>, Malformed> {
    let (mut bytes, mut scan, mut pieces) = (BytesMut::new(), Scan::default(), pieces.iter());
    let end = loop {
        match scan.end(&bytes)? {
            end if end.unwrap_or(bytes.len()) > limits.head_bytes => return Err(Malformed::TooLarge),
            Some(end) => break end,
            None => match pieces.next() {
                Some(piece) => bytes.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    };
    let total = bytes.len() + pieces.clone().map(|piece| piece.len()).sum::<usize>();
    let parts = head::answer(&bytes.split_to(end).freeze(), &limits)?;
    let length = framing::of_answer(method, parts.version, parts.status, &parts.headers)?;
    let (mut decoder, mut content) = (Decoder::new(length, limits), Content::default());
    loop {
        while content.take(decoder.next(&mut bytes)?) {}
        let Some(piece) = (if content.whole { None } else { pieces.next() }) else { break };
        bytes.extend_from_slice(piece);
    }
    content.whole |= decoder.close();
    content.holds(length, total);
    let taken = total - bytes.len() - pieces.map(|piece| piece.len()).sum::<usize>();
    Ok(Some(Answered { parts, length, content, taken }))
}

/// What an app says.
pub(super) fn answers(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let method = [Method::GET, Method::HEAD, Method::POST][usize::from(kind % 3)].clone();
    let (pieces, bytes) = pieces(bytes);
    let (whole, cut) = (answered(&method, &[bytes], LIMITS), answered(&method, &pieces, LIMITS));
    let (Ok(Some(whole)), Ok(Some(cut))) = (&whole, &cut) else {
        // In what is no answer there may be several faults; which is met first depends on how it comes.
        return assert_eq!(
            (whole.is_err(), whole.is_ok_and(|it| it.is_none())),
            (cut.is_err(), cut.is_ok_and(|it| it.is_none()))
        );
    };
    assert_eq!((&whole.content, whole.taken), (&cut.content, cut.taken), "pieces make a difference");
    if !whole.content.whole {
        return;
    }
    let as_asked = (&method, Version::HTTP_11);
    let out =
        written(Outgoing::answer(&whole.parts, Replay::of(&whole.content, whole.length), as_asked, true));
    let Ok(Some(again)) = answered(&method, &[&out], ROOMY) else {
        unreachable!("sent as {}", out.escape_ascii())
    };
    assert_eq!(again.taken, out.len(), "nothing is left over");
    assert_eq!((again.parts.status, again.content.said()), (whole.parts.status, whole.content.said()));
    assert_eq!(fields(&again.parts.headers, &OF_THE_HOP), fields(&whole.parts.headers, &OF_THE_HOP));
}

/// A body in chunks, and what follows it.
pub(super) fn chunks(bytes: &[u8]) {
    let (pieces, bytes) = pieces(bytes);
    let read = |pieces: &[&[u8]]| -> Result<(Content, Vec<u8>), Malformed> {
        let (mut decoder, mut content, mut left) =
            (Decoder::new(Length::Chunked, LIMITS), Content::default(), BytesMut::new());
        for piece in pieces {
            left.extend_from_slice(piece);
            while !content.whole && content.take(decoder.next(&mut left)?) {}
        }
        content.holds(Length::Chunked, bytes.len());
        Ok((content, left.to_vec()))
    };
    let (whole, cut) = (read(&[bytes]), read(&pieces));
    assert_eq!(whole.is_err(), cut.is_err(), "pieces make a difference: {whole:?} and {cut:?}");
    if let (Ok(whole), Ok(cut)) = (whole, cut) {
        assert_eq!((&whole.0.data, whole.0.whole), (&cut.0.data, cut.0.whole));
        assert!(!whole.0.whole || whole == cut, "{whole:?} and {cut:?}");
    }
}
