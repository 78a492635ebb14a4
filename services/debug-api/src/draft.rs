//! Resumable uploads as the IETF drafts them (draft-ietf-httpbis-resumable-upload, interop version 8), without the interim answers
//! of 104, which the draft recommends and does not demand. hyper, which serves HTTP here, sends no interim answer but 100, over either
//! version; h2 below it can (`SendResponse::send_informational`), but then every answer of this daemon would have to be served
//! without hyper, and read from the proxy by HTTP/2. The proxy passes hints on (103) and keeps every other one for its own hop. So a client that wants
//! to resume asks for the upload first, by `Upload-Complete: ?0` and no bytes, as the draft has it for such servers.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::{
    digests::Checksum,
    error::ApiError,
    fields,
    files::{Call, value},
    http::{ChunkReply, json},
    transfer::{About, Ends, Stage},
    transfers::{self, Came, Part},
};

/// Which state of the draft a client speaks.
pub(crate) const VERSION: &str = "upload-draft-interop-version";
/// The one that is spoken here; a client that says none is taken at its word.
const SPOKEN: u64 = 8;
/// The type of a part's bytes.
const MEDIA: &str = "application/partial-upload";
/// Whether a request brings the last of the bytes, and whether they are all there.
pub(crate) const COMPLETE: &str = "upload-complete";
const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";
const LIMIT: &str = "upload-limit";
/// The digest of the request's own bytes (RFC 9530).
const CONTENT_DIGEST: &str = "content-digest";

/// What this server can.
pub(crate) fn offer(call: &Call, headers: &mut HeaderMap) {
    headers.insert("accept-patch", HeaderValue::from_static(MEDIA));
    headers.insert(LIMIT, limits(call));
}

fn limits(call: &Call) -> HeaderValue {
    // Structured fields have integers of 15 digits at most.
    let bytes = call.hub.config.max_package_bytes.min(999_999_999_999_999);
    value(&format!("max-size={bytes}, max-age={}", transfers::life(&call.hub, &call.app).as_secs()))
}

/// Answers as the draft says.
pub(crate) async fn answer(call: &Call, body: Body) -> Response {
    let mut response = serve(call, body).await.unwrap_or_else(|error| {
        let whole = matches!(error, ApiError::Digest { .. });
        let mut response = error.into_response();
        if whole {
            complete(response.headers_mut(), true); // all bytes came: going on would not help
        }
        response
    });
    response.headers_mut().insert(LIMIT, limits(call));
    response
}

async fn serve(call: &Call, body: Body) -> Result<Response, ApiError> {
    if call.read(VERSION, fields::integer)?.is_some_and(|version| version != SPOKEN) {
        return Err(ApiError::Protocol);
    }
    match (&call.method, &call.upload) {
        (&Method::POST, None) => create(call, body).await,
        (&Method::HEAD, Some(_)) => head(call).await,
        (&Method::PATCH, Some(_)) => patch(call, body).await,
        (&Method::DELETE, Some(_)) => {
            transfers::end(&call.hub, &call.app, &*call.transfer()?).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(ApiError::Method),
    }
}

/// What a request says of the bytes that it brings.
fn part(call: &Call, offset: u64) -> Result<Part, ApiError> {
    Ok(Part {
        offset,
        bytes: call.bytes(),
        length: call.read(LENGTH, fields::integer)?,
        last: call.read(COMPLETE, fields::boolean)?.ok_or(ApiError::NoField("Upload-Complete"))?,
        sha256: call.repr_digest()?,
        checksum: call.read(CONTENT_DIGEST, fields::sha256)?.flatten().as_ref().map(Checksum::sha256),
    })
}

async fn create(call: &Call, body: Body) -> Result<Response, ApiError> {
    let part = part(call, 0)?;
    let length = part.length.or(part.bytes.filter(|_| part.last));
    let about = About::new(Ends::WhenSaid, length, call.repr_digest()?);
    let transfer = transfers::open(&call.hub, &call.app, about).await?;
    let came = call.begin(&transfer, part, body).await?;
    let mut response = came_to(came, StatusCode::CREATED);
    response.headers_mut().insert(header::LOCATION, value(&call.location(&transfer)));
    Ok(response)
}

async fn patch(call: &Call, body: Body) -> Result<Response, ApiError> {
    if !call.is_of(MEDIA)? {
        return Err(ApiError::Media(MEDIA));
    }
    let offset = call.read(OFFSET, fields::integer)?.ok_or(ApiError::NoField("Upload-Offset"))?;
    let came = call.append(&call.transfer()?, part(call, offset)?, body).await?;
    Ok(came_to(came, StatusCode::NO_CONTENT))
}

/// The answer to bytes that came: when they were the last, what the contract says to its last chunk.
fn came_to(came: Came, otherwise: StatusCode) -> Response {
    let mut response =
        if came.placed { json(StatusCode::OK, &ChunkReply::COMPLETED) } else { otherwise.into_response() };
    response.headers_mut().insert(OFFSET, came.offset.into());
    complete(response.headers_mut(), came.placed);
    response
}

fn complete(headers: &mut HeaderMap, whole: bool) {
    headers.insert(COMPLETE, HeaderValue::from_static(if whole { "?1" } else { "?0" }));
}

async fn head(call: &Call) -> Result<Response, ApiError> {
    let transfer = call.transfer()?;
    let standing = transfers::standing(&call.hub, &call.app, &transfer).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(OFFSET, standing.offset.into());
    complete(headers, standing.about.stage == Stage::Placed);
    if let Some(length) = standing.about.length {
        headers.insert(LENGTH, length.into());
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
