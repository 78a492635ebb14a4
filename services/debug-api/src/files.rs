//! `/debug/application/{id}/files`: resumable uploads, by tus 1.0 or by the IETF's draft. A request's own header fields tell which
//! of them is spoken; an upload that was begun by one may be gone on with by the other.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use serde::Serialize;

use crate::{
    applications::{App, Hub},
    audit::Asker,
    digests::Sha256Hex,
    draft,
    error::ApiError,
    fields,
    http::{Target, json},
    transfer::Transfer,
    transfers::{self, Came, Part},
    tus,
};

/// The digest of the whole file (RFC 9530), which a client of either protocol may announce.
const REPR_DIGEST: &str = "repr-digest";

/// A request about uploads, all but its body.
pub(crate) struct Call {
    pub(crate) hub: Arc<Hub>,
    pub(crate) app: Arc<App>,
    pub(crate) asker: Asker,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// Of which upload; none for the place where they begin.
    pub(crate) upload: Option<String>,
}

/// Which protocol a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Tus,
    Draft,
}

/// By the header fields that only one of them has. A bare POST is not understood, which tus has the better words for; the
/// draft's HEAD and DELETE need no field at all.
fn speech(method: &Method, headers: &HeaderMap) -> Speech {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if headers.contains_key(draft::VERSION) || headers.contains_key(draft::COMPLETE) {
        Speech::Draft
    } else if headers.contains_key(tus::RESUMABLE)
        || method == Method::POST
        || content_type == Some(tus::MEDIA.as_bytes())
    {
        Speech::Tus
    } else {
        Speech::Draft
    }
}

/// Where uploads begin.
pub(crate) async fn place(
    State(hub): State<Arc<Hub>>,
    Target(app): Target,
    asker: Asker,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    answer(&call(hub, app, asker, parts, None), body).await
}

/// One upload.
pub(crate) async fn one(State(hub): State<Arc<Hub>>, asker: Asker, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = Path::<(String, String)>::from_request_parts(&mut parts, &hub).await;
    let Ok(Path((id, upload))) = path else { return ApiError::NoTransfer.into_response() };
    match hub.find(&id) {
        Ok(app) => answer(&call(hub, app, asker, parts, Some(upload)), body).await,
        Err(error) => error.into_response(),
    }
}

fn call(hub: Arc<Hub>, app: Arc<App>, asker: Asker, parts: Parts, upload: Option<String>) -> Call {
    Call { hub, app, asker, method: parts.method, headers: parts.headers, upload }
}

/// What is not finished, so that a client that has forgotten where its upload is finds it by what it said of it.
#[derive(Serialize)]
struct Unfinished {
    uploads: Vec<Upload>,
}

#[derive(Serialize)]
struct Upload {
    location: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
}

fn unfinished(call: &Call) -> Vec<Upload> {
    let state = call.app.state();
    let open = state.transfers.values().filter(|transfer| transfer.is_open());
    open.map(|transfer| Upload { location: call.location(transfer), metadata: transfer.metadata.clone() })
        .collect()
}

async fn answer(call: &Call, body: Body) -> Response {
    if call.method == Method::GET && call.upload.is_none() {
        return json(StatusCode::OK, &Unfinished { uploads: unfinished(call) });
    }
    if call.method == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        tus::offer(&call.hub, response.headers_mut());
        draft::offer(call, response.headers_mut());
        return response;
    }
    match speech(&call.method, &call.headers) {
        Speech::Tus => tus::answer(call, body).await,
        Speech::Draft => draft::answer(call, body).await,
    }
}

impl Call {
    /// A field's text; one that is there twice, or no text, is wrong.
    pub(crate) fn field(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut values = self.headers.get_all(name).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| ApiError::Field(name)),
            (Some(_), Some(_)) => Err(ApiError::Field(name)),
        }
    }

    /// A field read; what can't be read is wrong.
    pub(crate) fn read<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.field(name)?.map(|text| read(text).ok_or(ApiError::Field(name))).transpose()
    }

    /// The length of the request's own body, if it says so.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.field("content-length").ok().flatten().and_then(fields::number)
    }

    /// The digest that the whole file shall have.
    pub(crate) fn repr_digest(&self) -> Result<Option<Sha256Hex>, ApiError> {
        Ok(self.read(REPR_DIGEST, fields::sha256)?.flatten())
    }

    /// Whether the request's body is of this type, whatever its parameters.
    pub(crate) fn is_of(&self, media: &'static str) -> Result<bool, ApiError> {
        let text = self.field("content-type")?.unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        Ok(essence.eq_ignore_ascii_case(media))
    }

    /// The upload that the request is about.
    pub(crate) fn transfer(&self) -> Result<Arc<Transfer>, ApiError> {
        transfers::find(&self.app, self.upload.as_deref().ok_or(ApiError::Method)?)
    }

    /// Where an upload is found.
    pub(crate) fn location(&self, transfer: &Transfer) -> String {
        format!("/debug/application/{}/files/{}", self.app.id, transfer.id)
    }

    /// Takes in what the body brings. It is noted when it was the last, and when it was not what it should have been.
    pub(crate) async fn append(
        &self,
        transfer: &Arc<Transfer>,
        part: Part,
        body: Body,
    ) -> Result<Came, ApiError> {
        let came = transfers::append(&self.hub, &self.app, transfer, part, body).await;
        match &came {
            Ok(Came { placed: true, .. }) | Err(ApiError::Digest { .. }) => {
                let what = ("application.upload", self.app.id.as_str());
                self.asker.noted(&self.hub.audit, what, came, |_| self.app.package())
            }
            _ => came,
        }
    }

    /// Takes in what the request that begins an upload brings along. If that goes wrong nobody was told where the upload is, so
    /// it ends.
    pub(crate) async fn begin(
        &self,
        transfer: &Arc<Transfer>,
        part: Part,
        body: Body,
    ) -> Result<Came, ApiError> {
        let came = self.append(transfer, part, body).await;
        if came.is_err() {
            let _ = transfers::end(&self.hub, &self.app, transfer).await; // it may be gone already
        }
        came
    }
}

/// A value of ours.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("our own values are printable ASCII")
}
