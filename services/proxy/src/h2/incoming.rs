//! A request's body as it comes over HTTP/2.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::session::Shared;

/// Why a request's body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Its stream was reset, or its connection ended.
    #[error("the client broke off")]
    Gone,
}

/// A request's body; who drops it wants no more of it.
pub(crate) struct Incoming {
    session: Shared,
    stream: u32,
}

impl Incoming {
    /// That of this stream.
    pub(super) fn new(session: Shared, stream: u32) -> Self {
        Self { session, stream }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.session.lock().poll_body(self.stream, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.session.lock().is_read(self.stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.session.lock().unread(self.stream).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.session.lock().forget_body(self.stream);
    }
}
