//! How an app says no: a status and one sentence, as JSON `{"error": "…"}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;

/// A refusal, for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What it is answered with.
    pub status: StatusCode,
    /// What happened and, where that helps, what to do; no secret of the app's.
    pub text: String,
}

impl Refusal {
    /// With this status and text.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// What was sent can't be used.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Nobody is signed in, or not so that the app can tell.
    #[must_use]
    pub fn unknown_caller() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "who asks is not known")
    }

    /// Who asks may not have it.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    /// A form that was not made for who sends it, or too long ago.
    #[must_use]
    pub fn stale_form() -> Self {
        Self::forbidden("this form was too old; go back, reload the page, and try once more")
    }

    /// There is no such thing.
    pub fn missing(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// Something that the app needs is away for now.
    pub fn away(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// Something broke that is not the asker's business: told to the log, and to the asker only that it did.
    pub fn broken(error: &dyn std::error::Error) -> Self {
        eprintln!("a request could not be answered: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something broke here; the log of this app says what")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.text }))).into_response()
    }
}
