//! tus 1.0: the core protocol and its extensions creation (with upload, with deferred length), expiration, checksum and
//! termination. Beyond it, the key `sha256` of an upload's metadata is the digest, in hex, that the whole file must have.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::{
    applications::Hub,
    digests::{Algorithm, Checksum, Sha256Hex},
    error::ApiError,
    fields::{self, NoChecksum},
    files::{Call, value},
    record::now_ms,
    transfer::{About, Ends},
    transfers::{self, Part},
};

/// The field that each request of tus has.
pub(crate) const RESUMABLE: &str = "tus-resumable";
/// Its one value.
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
/// The type of a part's bytes.
pub(crate) const MEDIA: &str = "application/offset+octet-stream";
const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination";
const METHOD: &str = "x-http-method-override";
const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";
const DEFER: &str = "upload-defer-length";
const METADATA: &str = "upload-metadata";
const CHECKSUM: &str = "upload-checksum";
const EXPIRES: &str = "upload-expires";

/// What this server can.
pub(crate) fn offer(hub: &Hub, headers: &mut HeaderMap) {
    headers.insert(RESUMABLE, VERSION);
    headers.insert("tus-version", VERSION);
    headers.insert("tus-extension", HeaderValue::from_static(EXTENSIONS));
    headers.insert("tus-max-size", hub.config.max_package_bytes.into());
    headers.insert("tus-checksum-algorithm", HeaderValue::from_static(Algorithm::NAMES));
}

/// Answers in tus.
pub(crate) async fn answer(call: &Call, body: Body) -> Response {
    let mut response = serve(call, body).await.unwrap_or_else(|error| {
        let unspoken = matches!(error, ApiError::Protocol);
        let mut response = error.into_response();
        if unspoken {
            response.headers_mut().insert("tus-version", VERSION);
        }
        response
    });
    response.headers_mut().insert(RESUMABLE, VERSION);
    response
}

async fn serve(call: &Call, body: Body) -> Result<Response, ApiError> {
    if call.field(RESUMABLE)?.map(str::as_bytes) != Some(VERSION.as_bytes()) {
        return Err(ApiError::Protocol);
    }
    // For clients whose way here lets through what browsers' forms send and nothing else.
    let method = call.read(METHOD, |text| text.parse::<Method>().ok())?.unwrap_or(call.method.clone());
    match (method, &call.upload) {
        (Method::POST, None) => create(call, body).await,
        (Method::HEAD, Some(_)) => head(call).await,
        (Method::PATCH, Some(_)) => patch(call, body).await,
        (Method::DELETE, Some(_)) => {
            transfers::end(&call.hub, &call.app, &*call.transfer()?).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(ApiError::Method),
    }
}

async fn create(call: &Call, body: Body) -> Result<Response, ApiError> {
    let length = length(call)?;
    let mut about = About::new(Ends::AtLength, length, digest(call)?);
    about.metadata = call.field(METADATA)?.map(str::to_owned);
    let with_upload = call.is_of(MEDIA)?;
    if !with_upload && call.bytes().is_some_and(|bytes| bytes > 0) {
        return Err(ApiError::Media(MEDIA));
    }
    let checksum = checksum(call)?;
    let transfer = transfers::open(&call.hub, &call.app, about).await?;
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(&call.location(&transfer)));
    let mut ended = false;
    if with_upload || length == Some(0) {
        let part = Part { bytes: call.bytes(), checksum, ..Part::default() };
        let came = call.begin(&transfer, part, body).await?;
        headers.insert(OFFSET, came.offset.into());
        ended = came.placed;
    }
    expires(call, headers, ended);
    Ok(response)
}

/// How long the upload will be; none if that is said later.
fn length(call: &Call) -> Result<Option<u64>, ApiError> {
    let length = call.read(LENGTH, fields::number)?;
    match (length, call.field(DEFER)?) {
        (Some(length), None) => Ok(Some(length)),
        (None, Some("1")) => Ok(None),
        (None, None) => Err(ApiError::NoField("Upload-Length or Upload-Defer-Length")),
        _ => Err(ApiError::Field("Upload-Defer-Length")),
    }
}

/// The digest of the whole, which may be said in two ways, but not in two minds.
fn digest(call: &Call) -> Result<Option<Sha256Hex>, ApiError> {
    let in_metadata = call.read(METADATA, fields::metadata)?.flatten();
    match (in_metadata, call.repr_digest()?) {
        (Some(one), Some(other)) if one != other => Err(ApiError::Field("Repr-Digest")),
        (one, other) => Ok(one.or(other)),
    }
}

fn checksum(call: &Call) -> Result<Option<Checksum>, ApiError> {
    let text = call.field(CHECKSUM)?;
    text.map(fields::checksum).transpose().map_err(|why| match why {
        NoChecksum::Malformed => ApiError::Field("Upload-Checksum"),
        NoChecksum::UnknownAlgorithm => ApiError::Algorithm,
    })
}

async fn head(call: &Call) -> Result<Response, ApiError> {
    let transfer = call.transfer()?;
    let standing = transfers::standing(&call.hub, &call.app, &transfer).await?;
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(OFFSET, standing.offset.into());
    match standing.about.length {
        Some(length) => headers.insert(LENGTH, length.into()),
        None => headers.insert(DEFER, HeaderValue::from_static("1")),
    };
    if let Some(metadata) = &standing.about.metadata {
        headers.insert(METADATA, value(metadata));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    expires(call, headers, !transfer.is_open());
    Ok(response)
}

async fn patch(call: &Call, body: Body) -> Result<Response, ApiError> {
    if !call.is_of(MEDIA)? {
        return Err(ApiError::Media(MEDIA));
    }
    let part = Part {
        offset: call.read(OFFSET, fields::number)?.ok_or(ApiError::NoField("Upload-Offset"))?,
        bytes: call.bytes(),
        length: call.read(LENGTH, fields::number)?,
        last: false,
        sha256: call.repr_digest()?,
        checksum: checksum(call)?,
    };
    let came = call.append(&call.transfer()?, part, body).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(OFFSET, came.offset.into());
    expires(call, response.headers_mut(), came.placed);
    Ok(response)
}

/// Until when the upload may be gone on with; one that has ended has no such moment.
fn expires(call: &Call, headers: &mut HeaderMap, ended: bool) {
    if !ended {
        let life = transfers::life(&call.hub, &call.app).as_millis();
        let life = i64::try_from(life).unwrap_or(i64::MAX);
        headers.insert(EXPIRES, value(&fields::http_date(now_ms().saturating_add(life))));
    }
}
