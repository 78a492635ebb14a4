//! What is noted of the developers' calls: who asked for a change, from where, and what came of it.

use axum::extract::FromRequestParts;
use http::request::Parts;
use nexushub_chassis::audit::{self, Audit};

use crate::error::ApiError;

/// In which the proxy says whom the call came through: what it knows by itself or from those it trusts, and nobody else's word.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Who calls, as the guard found out; who it says nothing of is an operator.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub(crate) String);

/// Whoever asks for something.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// For people.
    pub(crate) who: String,
    pub(crate) from: String,
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let who = parts.extensions.get::<Who>().map_or_else(|| "operator".to_owned(), |Who(who)| who.clone());
        let from = parts.headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Self { who, from: from.to_owned() })
    }
}

impl Asker {
    /// The platform itself.
    pub(crate) fn platform() -> Self {
        Self { who: "debug-api".to_owned(), from: String::new() }
    }

    /// Notes what it asked for, and hands on what came of it.
    pub(crate) fn noted<T>(
        &self,
        audit: &Audit,
        what: (&'static str, &str),
        asked: Result<T, ApiError>,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, ApiError> {
        audit.noted(audit::Asker::new(self.who.clone(), self.from.clone()), what, asked, detail)
    }
}
