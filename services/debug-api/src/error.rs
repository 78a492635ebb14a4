//! Everything that can be wrong with a request, and the one exhaustive match to its HTTP status.
//!
//! The messages are the contract's texts word for word (clients compare them), hence the capitals.

use std::io;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use nexushub_chassis::{applog::BadWish, chain};
use tonic::{Code, Status};

use crate::{digests::Algorithm, names::NameError, peers::is_refusal, unpack::UnpackError};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("Forbidden")]
    NotFromProxy,
    #[error("Unauthorized")]
    Unauthorized,
    #[error("Not Found")]
    NotFound,
    #[error("Method Not Allowed")]
    Method,
    #[error("Invalid request body")]
    Body,
    #[error("Missing required fields: appId, displayName, hostName, dbName")]
    Fields,
    #[error(transparent)]
    Name(NameError),
    #[error("Host name {host} is taken by debug application {by}; choose another or delete that one")]
    HostTaken { host: String, by: String },
    #[error("Host name {host} is taken by instance {by}; choose another")]
    HostGiven { host: String, by: String },
    #[error("Too many debug applications: the limit is {0}; delete one first")]
    TooMany(usize),
    #[error("Debug application not found")]
    NoApplication,
    #[error("Failed to parse upload form")]
    Form,
    #[error("Missing required parameters: chunkIndex, totalChunks, fileHash")]
    Parameters,
    #[error("Invalid chunk index")]
    Index,
    #[error("Invalid total chunks")]
    Total,
    #[error("Invalid file hash")]
    Hash,
    #[error("Failed to get chunk file")]
    NoChunk,
    #[error("Upload is too large: the limit is {0} bytes")]
    TooLarge(u64),
    #[error("Upload made no progress for {0} ms")]
    Stalled(u64),
    #[error("Failed to process chunk")]
    Chunk(#[source] ChunkError),
    #[error("Upload session not found")]
    NoSession,
    #[error("Upload not found; it has ended, was removed, or never was: begin another")]
    NoTransfer,
    #[error("Invalid {0}")]
    Field(&'static str),
    #[error("Missing {0}")]
    NoField(&'static str),
    #[error("Unsupported protocol: say Tus-Resumable: 1.0.0, or Upload-Draft-Interop-Version: 8")]
    Protocol,
    #[error("Unsupported checksum: use one of {}", Algorithm::NAMES)]
    Algorithm,
    #[error("Invalid Content-Type: use {0}")]
    Media(&'static str),
    #[error("Upload-Offset is {said}, but the upload has {ours} bytes; go on from there")]
    Offset { ours: u64, said: u64 },
    #[error("Upload-Length is {said}, but {known} bytes were announced or are there")]
    Length { known: u64, said: u64 },
    #[error("Upload has more bytes than the {0} that were announced")]
    Longer(u64),
    #[error("Upload is said to end after {has} bytes, but {length} were announced")]
    Shorter { has: u64, length: u64 },
    #[error("Upload is complete already")]
    Whole,
    #[error("Checksum of the request's bytes does not match; none of them was kept")]
    Checksum,
    #[error("SHA-256 of the uploaded file is {found}, not {expected}; nothing was kept: upload it again")]
    Digest { found: String, expected: String },
    #[error("Upload broke off; what came was kept")]
    BrokeOff,
    #[error("Upload was taken over by a later request")]
    TakenOver,
    #[error("Too many unfinished uploads{of}: the limit is {limit}; finish or delete one first")]
    TooManyTransfers { of: &'static str, limit: usize },
    #[error("Not enough disk space for uploads: unfinished ones may take {0} % of what is free without them")]
    NoRoom(u8),
    #[error("No package uploaded for this application")]
    NoPackage,
    #[error(
        "Package to install is {found} by now, not {expected}: somebody else uploaded, started or rolled back meanwhile; upload it again"
    )]
    OtherPackage { found: String, expected: String },
    #[error("Package file not found")]
    NoPackageFile,
    #[error("Release not found: {0}; see GET …/releases for those that are kept")]
    NoRelease(String),
    #[error("No earlier release was healthy; name one of GET …/releases")]
    NoHealthyRelease,
    #[error("Package preparation failed: {}", chain(.0))]
    Preparation(UnpackError),
    #[error("Installation failed: {0}")]
    Installation(String),
    #[error("Installation failed: {0}")]
    Taken(String),
    #[error("Application is permanent: the admin app owns it; change it there")]
    Permanent,
    #[error("Admin app can't take the application over: {0}; try again")]
    AdminAway(String),
    #[error("Admin app refuses the application: {0}")]
    AdminRefused(String),
    #[error("Application is not running")]
    NotRunning,
    #[error("procmgr did not do it: {0}; try again")]
    Unheard(String),
    #[error("proxy does not say what it counts: {0}; try again")]
    Uncounted(String),
    #[error("Application not found in process manager")]
    NoLog,
    #[error("Too many streams of {of}: the limit is {limit}")]
    TooManyStreams { of: &'static str, limit: usize },
    #[error("Too many log streams: {0}")]
    Crowded(String),
    #[error("Invalid parameter {0}")]
    Wish(BadWish),
    #[error("Invalid parameters: {0}")]
    Query(String),
    #[error("{0} is not installed yet; use the operator token (nexushub secret debug-api) as bearer")]
    Login(&'static str),
    #[error("Internal error; see the log of debug-api")]
    Storage(#[source] StorageError),
}

/// Why a chunk could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChunkError {
    #[error("chunk {0} belongs to another file than the one being uploaded")]
    Foreign(u32),
    #[error("{what} of the assembled file is {found}, not {expected}")]
    Digest { what: &'static str, found: String, expected: String },
    #[error("upload was cancelled")]
    Cancelled,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} {path}")]
pub(crate) struct StorageError {
    pub(crate) what: &'static str,
    pub(crate) path: String,
    #[source]
    pub(crate) cause: io::Error,
}

impl StorageError {
    /// For `map_err`: names the operation and its object.
    pub(crate) fn of(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |cause| Self { what, path, cause }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl ApiError {
    /// What provider's refusal of an installed application is to the client.
    pub(crate) fn refused(status: &Status) -> Self {
        let why = status.message().to_owned();
        if status.code() == Code::AlreadyExists { Self::Taken(why) } else { Self::Installation(why) }
    }

    /// What procmgr's answer to an order about an application is to the client.
    pub(crate) fn told(status: &Status) -> Self {
        let why = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotRunning,
            _ if is_refusal(status) => Self::Query(why),
            _ => Self::Unheard(why),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Name(NameError::Reserved(_))
            | Self::HostTaken { .. }
            | Self::HostGiven { .. }
            | Self::Taken(_)
            | Self::Permanent
            | Self::AdminRefused(_)
            | Self::OtherPackage { .. }
            | Self::Offset { .. }
            | Self::TakenOver => StatusCode::CONFLICT,
            Self::Body
            | Self::Fields
            | Self::Name(_)
            | Self::Form
            | Self::Parameters
            | Self::Index
            | Self::Total
            | Self::Hash
            | Self::NoChunk
            | Self::NoPackage
            | Self::Field(_)
            | Self::Wish(_)
            | Self::Query(_)
            | Self::NoField(_)
            | Self::Algorithm
            | Self::Length { .. }
            | Self::Longer(_)
            | Self::Shorter { .. }
            | Self::Whole
            | Self::BrokeOff
            | Self::NotRunning => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFromProxy => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::NoApplication
            | Self::NoSession
            | Self::NoTransfer
            | Self::NoPackageFile
            | Self::NoRelease(_)
            | Self::NoHealthyRelease
            | Self::NoLog => StatusCode::NOT_FOUND,
            Self::Protocol => StatusCode::PRECONDITION_FAILED,
            Self::Media(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Checksum => checksum_mismatch(),
            Self::Digest { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Preparation(error) => unusable(error),
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany(_) | Self::TooManyTransfers { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Login(_)
            | Self::AdminAway(_)
            | Self::Unheard(_)
            | Self::Uncounted(_)
            | Self::TooManyStreams { .. }
            | Self::Crowded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Chunk(_) | Self::Installation(_) | Self::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if let Self::Chunk(_) | Self::Storage(_) = self {
            tracing::warn!(error = chain(&self), "request failed");
        }
        let mut response = text(status, &self.to_string());
        match self {
            Self::Unauthorized => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Offset { ours, .. } => {
                response.headers_mut().insert("upload-offset", ours.into());
            }
            _ => {}
        }
        response
    }
}

/// What a package that can't be unpacked is: there may only be no room for it.
fn unusable(error: &UnpackError) -> StatusCode {
    if error.is_of_room() { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// The status that tus has for it.
fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).expect("it has three digits")
}

/// An answer in words, as the contract sends all of them.
pub(crate) fn text(status: StatusCode, message: &str) -> Response {
    let mut response = (status, format!("{message}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
