//! What can go wrong with a request on its way to a backend and back, and the one place that turns it into an answer.

use std::io::ErrorKind;

use http::StatusCode;
use nexushub_chassis::Fault;

use crate::{
    body::RequestBroke,
    certificate::Problem,
    config::OutOfRange,
    counters::Stopped,
    forward::too_large,
    h1::{channel::Broken, client::Broke},
    pool::Unavailable,
    refusal::Refusal,
};

/// Why a backend gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no connection to it; nothing was sent.
    #[error("backend is not available")]
    Unavailable(#[from] Unavailable),
    /// It broke off, or what it sent isn't HTTP.
    #[error("backend broke")]
    Broke(#[source] Broke),
    /// It took the request and said nothing in time.
    #[error("backend did not answer in time")]
    Slow,
    /// It changed protocols without being asked to, or to another one.
    #[error("backend changed to a protocol that was not asked for")]
    Protocol,
    /// The client stopped sending in the middle of its request.
    #[error("client did not finish its request in time")]
    SlowClient,
    /// The client's request broke off or is malformed.
    #[error("request broke off")]
    Client(#[source] RequestBroke),
}

impl Failure {
    /// Whether it is the backend that fails, and not its client.
    pub(crate) fn is_backends(&self) -> bool {
        match self {
            Self::Unavailable(Unavailable::Busy) | Self::SlowClient | Self::Client(_) => false,
            Self::Unavailable(Unavailable::Connect(_)) | Self::Broke(_) | Self::Slow | Self::Protocol => true,
        }
    }

    /// The answer for the client.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Unavailable(Unavailable::Busy) => {
                let text = "Service Unavailable: too many requests to this app at once";
                Refusal::unavailable(text, 1).by(Stopped::Backend)
            }
            Self::Unavailable(Unavailable::Connect(error)) => {
                let text = "Bad Gateway: the app does not accept connections";
                let by = (error.kind() == ErrorKind::TimedOut).then_some(Stopped::Connect);
                Refusal { by, ..Refusal::new(StatusCode::BAD_GATEWAY, text) }
            }
            Self::Broke(_) | Self::Protocol => {
                Refusal::new(StatusCode::BAD_GATEWAY, "Bad Gateway: the app gave no valid answer")
            }
            Self::Slow => {
                let text = "Gateway Timeout: the app did not answer in time";
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, text).by(Stopped::FirstByte)
            }
            Self::SlowClient => {
                let refusal = Refusal::new(StatusCode::REQUEST_TIMEOUT, "Request Timeout");
                Refusal { close: true, ..refusal.by(Stopped::SlowBody) }
            }
            Self::Client(RequestBroke::TooLarge) => too_large(),
            Self::Client(RequestBroke::H1(Broken::Malformed(error))) => Refusal::malformed(*error),
            Self::Client(_) => Refusal::bad_request("the request broke off"),
        }
    }
}

impl From<Broke> for Failure {
    fn from(broke: Broke) -> Self {
        match broke {
            Broke::Request(broke) => Self::Client(broke),
            broke => Self::Broke(broke),
        }
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::new(problem.code, problem.msg, problem.object.display().to_string(), problem.hint)
    }
}

impl From<OutOfRange> for Fault {
    fn from(error: OutOfRange) -> Self {
        let hint = "see dist/config/nexushub.toml for what each key means";
        let fault = Self::new("config_invalid", error.to_string(), format!("proxy.{}", error.key), hint);
        Self { exit: nexushub_chassis::launch::fault::EXIT_USAGE, ..fault }
    }
}
