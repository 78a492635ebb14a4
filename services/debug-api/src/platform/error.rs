//! Why a call is refused, and the one exhaustive match to its HTTP status. The admin app shows the texts to people.

use std::io;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use nexushub_chassis::chain;
use serde::Serialize;
use tonic::{Code, Status};

use crate::{
    error::{ApiError, StorageError},
    peers::is_refusal,
    unpack::UnpackError,
};

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is no such call")]
    NotFound,
    #[error("this call is not made by this method")]
    Method,
    #[error("there is no such instance")]
    NoInstance,
    #[error("there is no such release")]
    NoRelease,
    #[error("the request can't be read: {0}")]
    Body(String),
    #[error("the instance is {0}; its package is changed there")]
    Elsewhere(&'static str),
    #[error("the instance does not run: {0}")]
    Conflict(String),
    #[error("another package of application {0} is on its way; wait for what becomes of it")]
    Busy(String),
    #[error("the package is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the package stopped coming")]
    Stalled,
    #[error("the package can't be used: {}", chain(.0))]
    Package(#[from] UnpackError),
    #[error("the package has no bin/app")]
    NoApp,
    #[error("the outcome is not known yet: {0}; the release stays")]
    Unknown(String),
    #[error(transparent)]
    Daemon(Status),
    #[error(transparent)]
    Api(ApiError),
    #[error("the audit log can't be read: {0}")]
    Trail(io::Error),
    #[error("the audit log can't be written now; see the log of debug-api")]
    Unwritten,
    #[error("the package can't be read now: {0}")]
    Unread(io::Error),
    #[error("the package could not be stored; see the log of debug-api")]
    Storage(#[from] StorageError),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Daemon(status)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

#[derive(Serialize)]
struct Answer {
    error: String,
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::NoInstance | Self::NoRelease => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Elsewhere(_) | Self::Conflict(_) | Self::Busy(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Package(error) if error.is_of_room() => StatusCode::INSUFFICIENT_STORAGE,
            Self::Package(_) | Self::NoApp => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Daemon(status) => match status.code() {
                Code::NotFound => StatusCode::NOT_FOUND,
                _ if is_refusal(status) => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Api(ApiError::NoLog) => StatusCode::NOT_FOUND,
            Self::Api(_) | Self::Unwritten => StatusCode::SERVICE_UNAVAILABLE,
            Self::Storage(_) | Self::Trail(_) | Self::Unread(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        if matches!(self, Self::Storage(_)) {
            tracing::warn!(error = chain(&self), "request failed");
        }
        let error = match &self {
            Self::Daemon(status) if status.message().is_empty() => format!("{:?}", status.code()),
            Self::Daemon(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        super::json(status, &Answer { error })
    }
}
