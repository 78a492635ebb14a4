//! Calling another daemon: a channel that connects when it is first used and again whenever it must, shows this daemon's token,
//! carries the trace on, and gives every call a deadline (a held socket accepts connections while its daemon is dead).

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    body::Body,
    transport::{Channel, Endpoint, Error, Uri},
};
use tower::{Service, service_fn};

use crate::{credentials::Credentials, trace};

/// Until the head of the answer: the whole of a unary call, the acceptance of a stream.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// What the other side may send ahead on one stream that may stand, and on all such streams of a channel: a thousand of them.
const STANDING_STREAM: u32 = 64 << 10;
const STANDING_ALL: u32 = 64 << 20;

/// A lazy, reconnecting channel to one daemon.
#[derive(Debug, Clone)]
pub struct GrpcChannel {
    channel: Channel,
    bearer: Option<HeaderValue>,
}

impl GrpcChannel {
    /// A channel to the daemon behind a Unix socket, showing `token`. Nothing is connected yet. Needs a tokio runtime.
    #[must_use]
    pub fn new(socket: PathBuf, token: Option<&str>) -> Self {
        // tonic refuses a path as the authority; the name is never resolved.
        Self::over(Endpoint::from_static("http://localhost"), socket, token)
    }

    fn over(endpoint: Endpoint, socket: PathBuf, token: Option<&str>) -> Self {
        let endpoint = endpoint.timeout(CALL_TIMEOUT);
        let socket = Arc::new(socket);
        let connector = service_fn(move |_: Uri| {
            let socket = Arc::clone(&socket);
            async move { connect(&socket).await.map(TokioIo::new) }
        });
        let bearer = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()).map(
            |mut value| {
                value.set_sensitive(true);
                value
            },
        );
        Self { channel: endpoint.connect_with_connector_lazy(connector), bearer }
    }
}

/// Connects to a Unix socket, however long its path is: the address holds 107 bytes, the folder's descriptor has no such limit.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= 107 {
        return UnixStream::connect(socket).await;
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket's path"));
    };
    let folder = std::fs::File::open(folder)?;
    let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    UnixStream::connect(Path::new(&short).join(name)).await
}

impl Service<Request<Body>> for GrpcChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        trace::inject(request.headers_mut());
        Box::pin(self.channel.call(request))
    }
}

/// The daemons that this one may call, each through one channel.
#[derive(Clone)]
pub struct Clients {
    run: PathBuf,
    credentials: Credentials,
    channels: Arc<Mutex<HashMap<String, GrpcChannel>>>,
}

impl Clients {
    pub(crate) fn new(run: PathBuf, credentials: Credentials) -> Self {
        Self { run, credentials, channels: Arc::default() }
    }

    /// The channel to a daemon.
    #[must_use]
    pub fn channel(&self, daemon: &str) -> GrpcChannel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || GrpcChannel::new(self.socket(daemon), self.credentials.token_for(daemon));
        channels.entry(daemon.to_owned()).or_insert_with(new).clone()
    }

    /// A channel of its own for streams that may stand, because whoever they are for is slow. What is sent ahead on all streams
    /// of a channel has one bound: on the common channel a few that stand would keep every other call from its answer.
    #[must_use]
    pub fn standing(&self, daemon: &str) -> GrpcChannel {
        let endpoint = Endpoint::from_static("http://localhost")
            .initial_stream_window_size(STANDING_STREAM)
            .initial_connection_window_size(STANDING_ALL);
        GrpcChannel::over(endpoint, self.socket(daemon), self.credentials.token_for(daemon))
    }

    fn socket(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.sock"))
    }
}
