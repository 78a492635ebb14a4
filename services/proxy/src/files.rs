//! Static files of an app: what lies under `<release>/static`, and nothing else.
//!
//! A path is decoded once, cut into names, and opened by the kernel beneath the folder (`openat2` with `RESOLVE_BENEATH`;
//! where a kernel lacks that, name by name without following links). There is no moment between check and use.
//!
//! Two names are special, as elsewhere: `200.html` is the answer to every page that isn't there (an app in the browser has
//! pages that the folder knows nothing of), `404.html` the text of the answer that there is none.

mod body;
pub(crate) mod codings;
pub(crate) mod conditions;
mod kinds;

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        LAST_MODIFIED, RANGE, VARY,
    },
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    sys::stat::Mode,
};

pub(crate) use self::body::FileBody;
use self::{
    codings::Coding,
    conditions::{Answer, Version},
};
use crate::{body::ResponseBody, paths, refusal::Refusal};

/// Files up to this size are read in one piece with the opening.
const SMALL: u64 = 64 * 1024;

/// An app's folder of static files; looked at when first asked for. A release never changes, so once is enough.
#[derive(Debug)]
pub(crate) struct Site {
    path: PathBuf,
    folder: OnceLock<Option<Arc<OwnedFd>>>,
}

impl Site {
    /// The folder of this path, which need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, folder: OnceLock::new() }
    }

    /// The folder, if there is one. A link in its place is none: it could lead anywhere.
    pub(crate) fn folder(&self) -> io::Result<Option<Arc<OwnedFd>>> {
        if let Some(known) = self.folder.get() {
            return Ok(known.clone());
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = match open(&self.path, flags, Mode::empty()) {
            _ if !self.path.is_absolute() => None,
            Ok(folder) => Some(Arc::new(folder)),
            Err(errno) if is_passing(errno) => return Err(errno.into()),
            Err(_) => None,
        };
        Ok(self.folder.get_or_init(|| found).clone())
    }
}

/// Whether the error is about this moment and not about the file.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EIO | Errno::EAGAIN | Errno::EINTR)
}

/// Answers a request for a static file.
pub(crate) async fn answer(
    folder: Arc<OwnedFd>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, Refusal> {
    let head_only = method == Method::HEAD;
    if method == Method::OPTIONS {
        return Ok(shared(options()));
    }
    if method != Method::GET && !head_only {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        return Err(Refusal { allow: Some(METHODS), ..refusal });
    }
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "Not Found");
    let wish = Wish {
        name: resolve(path),
        page: is_page(headers),
        codings: if headers.contains_key(RANGE) { Vec::new() } else { codings::accepted(headers) },
    };
    match tokio::task::spawn_blocking(move || wish.find(&folder)).await {
        Ok(Ok(opened)) => Ok(shared(respond(opened, head_only, headers))),
        Ok(Err(error)) if error.raw_os_error().is_some_and(|raw| is_passing(Errno::from_raw(raw))) => {
            tracing::warn!(%error, "static file can't be opened");
            Err(Refusal::unavailable("Service Unavailable: the file can't be opened now", 1))
        }
        _ => Err(missing()),
    }
}

/// Whether a person looks at it: a browser says so of pages, and of nothing else.
fn is_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .is_some_and(|kinds| kinds.as_bytes().windows(9).any(|kind| kind.eq_ignore_ascii_case(b"text/html")))
}

/// What is asked for.
struct Wish {
    /// The file, if the path can be one's.
    name: Option<PathBuf>,
    /// It is for a person to look at.
    page: bool,
    /// How it may be compressed.
    codings: Vec<Coding>,
}

impl Wish {
    /// The file, or what stands for it.
    fn find(&self, folder: &OwnedFd) -> io::Result<Opened> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let error = match &self.name {
            Some(name) => match self.open(folder, name) {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            },
            None => missing(),
        };
        if error.raw_os_error().is_some_and(|raw| is_passing(Errno::from_raw(raw))) || !self.page {
            return Err(error);
        }
        let other =
            |name, status| self.open(folder, Path::new(name)).map(|opened| Opened { status, ..opened });
        other("200.html", StatusCode::OK)
            .or_else(|_| other("404.html", StatusCode::NOT_FOUND))
            .map_err(|_| error)
    }

    /// This file, compressed if it lies there in a way that may be.
    fn open(&self, folder: &OwnedFd, name: &Path) -> io::Result<Opened> {
        let plain = Opened::open(folder, name)?;
        let compressed = self.codings.iter().find_map(|coding| {
            let mut beside = name.as_os_str().to_owned();
            beside.push(format!(".{}", coding.suffix));
            Some(Opened::open(folder, Path::new(&beside)).ok()?.compressed(*coding))
        });
        Ok(Opened { kind: kinds::of(name), ..compressed.unwrap_or(plain) })
    }
}

/// What may be asked of a file.
const METHODS: &str = "GET, HEAD";

fn options() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// The path below the folder that a request's path means; none if it names no file there.
fn resolve(path: &str) -> Option<PathBuf> {
    let path = if path == "/" || path.is_empty() { "/index.html" } else { path };
    let decoded = String::from_utf8(paths::decode_bytes(path)).ok()?;
    if decoded.contains('\0') || decoded.ends_with('/') {
        return None;
    }
    let mut name = PathBuf::new();
    for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
        if segment == "." || segment == ".." {
            return None;
        }
        name.push(segment);
    }
    (!name.as_os_str().is_empty()).then_some(name)
}

/// A file found, with its small content.
struct Opened {
    /// What it is an answer of.
    status: StatusCode,
    kind: &'static str,
    /// How it is compressed.
    coding: Option<Coding>,
    file: File,
    size: u64,
    version: Version,
    content: Option<Bytes>,
}

impl Opened {
    fn open(folder: &OwnedFd, name: &Path) -> io::Result<Self> {
        let mut file = File::from(open_beneath(folder, name)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let size = metadata.len();
        let version = Version::new(metadata.mtime(), metadata.mtime_nsec(), size);
        let content = if size <= SMALL { Some(read_exactly(&mut file, size)?) } else { None };
        let (status, kind) = (StatusCode::OK, kinds::of(name));
        Ok(Self { status, kind, coding: None, file, size, version, content })
    }

    /// What it is: another one's content, compressed.
    fn compressed(self, coding: Coding) -> Self {
        let version = self.version.of_coding(coding.name);
        Self { coding: Some(coding), version, ..self }
    }
}

fn read_exactly(file: &mut File, size: u64) -> io::Result<Bytes> {
    let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact(&mut content)?;
    Ok(content.into())
}

/// Opens a file without ever leaving the folder. Not blocking, so that a fifo can't hold a thread.
fn open_beneath(folder: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(folder, name, how) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => open_by_name(folder, name, flags),
        opened => Ok(opened?),
    }
}

/// The same without `openat2`: one name after the other, following no link at all.
fn open_by_name(folder: &OwnedFd, name: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let through = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = folder.as_fd().try_clone_to_owned()?;
    let mut names = name.iter().peekable();
    while let Some(step) = names.next() {
        let flags = if names.peek().is_some() { through } else { flags | OFlag::O_NOFOLLOW };
        at = openat(&at, step, flags, Mode::empty())?;
    }
    Ok(at)
}

fn respond(opened: Opened, head_only: bool, asked: &HeaderMap) -> Response<ResponseBody> {
    let Opened { status, kind, coding, file, size, version, content } = opened;
    let judged = if status.is_success() { conditions::judge(asked, &version, size) } else { Answer::Whole };
    let (status, start, length) = match judged {
        Answer::Whole => (status, 0, size),
        Answer::Part { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
        Answer::Unchanged => (StatusCode::NOT_MODIFIED, 0, 0),
        Answer::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let body = if head_only || length == 0 {
        ResponseBody::empty()
    } else if let Some(content) = content {
        let start = usize::try_from(start).expect("within a small file");
        let length = usize::try_from(length).expect("within a small file");
        ResponseBody::text(content.slice(start..start + length))
    } else {
        ResponseBody::file(FileBody::new(file, start, length))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ETAG, version.etag.clone());
    headers.insert(LAST_MODIFIED, version.last_modified.clone());
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if status == StatusCode::NOT_MODIFIED {
        return response;
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let range = match status {
        StatusCode::PARTIAL_CONTENT => Some(format!("bytes {start}-{}/{size}", start + length - 1)),
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{size}")),
        _ => None,
    };
    if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
        headers.insert(CONTENT_RANGE, range);
    }
    if status != StatusCode::RANGE_NOT_SATISFIABLE {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name));
        }
        headers
            .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    }
    response
}

/// Files may be used by pages of other origins (contract §3.1, item 9).
fn shared(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

#[cfg(test)]
mod tests;
