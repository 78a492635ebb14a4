//! A page as it is sent: HTML that runs no script but this app's own files, is shown in no frame, and is kept by no cache.

use axum::response::{IntoResponse, Response};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use maud::{DOCTYPE, Markup, Render, html};

use crate::{Refusal, text::sentence};

/// What a page may load: files of its own app.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// Seconds that a browser keeps a file whose name changes with its content.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A page with everything that all pages have: `head` besides the title and the style, `body` with its own element.
#[must_use]
pub fn document(title: &str, head: &Markup, body: &Markup) -> Page {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · NexusHub" }
                link rel="stylesheet" href=(file_name("/public/style.css", STYLE));
                (head)
            }
            (body)
        }
    };
    Page::new(page.into_string())
}

/// What is said at the top of a page.
#[derive(Debug, Clone)]
pub enum Notice {
    /// What was done.
    Good(String),
    /// What is wrong.
    Bad(String),
}

impl Render for Notice {
    fn render(&self) -> Markup {
        match self {
            Self::Good(text) => html! { p.notice.good role="status" { (text) } },
            Self::Bad(text) => html! { p.notice.bad role="alert" { (text) } },
        }
    }
}

impl From<&Refusal> for Notice {
    fn from(refusal: &Refusal) -> Self {
        Self::Bad(sentence(&refusal.text))
    }
}

/// HTML to be sent as a page.
#[derive(Debug, Clone)]
pub struct Page {
    status: StatusCode,
    html: String,
    /// Where forms may lead besides this app itself.
    beyond: Option<String>,
}

impl Page {
    /// A page that went well.
    pub fn new(html: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, html: html.into(), beyond: None }
    }

    /// Whose forms may be answered by sending the browser to this origin, too, as `https://login.example:8443`.
    #[must_use]
    pub fn forms_may_lead_to(mut self, origin: &str) -> Self {
        self.beyond = Some(origin.to_owned());
        self
    }

    /// With another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        const HEADERS: [(HeaderName, &str); 5] = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
            (REFERRER_POLICY, "same-origin"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
        ];
        let policy = self.beyond.and_then(|origin| HeaderValue::try_from(format!("{POLICY} {origin}")).ok());
        let policy = policy.unwrap_or(HeaderValue::from_static(POLICY));
        (self.status, HEADERS, [(CONTENT_SECURITY_POLICY, policy)], self.html).into_response()
    }
}

/// Sends a browser on after a form was taken, so that going back or reloading sends nothing twice.
#[must_use]
pub fn see_other(path: &str) -> Response {
    let to = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response()
}

/// A file that is part of the program; asked for by [`file_name`], which changes with it.
#[must_use]
pub fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, KEPT)];
    (headers, [(X_CONTENT_TYPE_OPTIONS, "nosniff")], content).into_response()
}

/// The name of such a file: `/public/style.css?v=1a2b3c4d`.
#[must_use]
pub fn file_name(path: &str, content: &str) -> String {
    let version = crate::text::hex(&crate::text::digest(content)[..6]);
    format!("{path}?v={version}")
}

/// The look of the platform's own apps, for any app that likes it: serve it with [`file()`].
pub const STYLE: &str = include_str!("style.css");
