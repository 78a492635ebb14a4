//! The debug API as its clients use it: steps 3 to 9 of the contract, one call each.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use crate::{Answer, Failure, Https, Platform, Protocol, package::md5, soon};

/// Largest piece of an upload.
pub const CHUNK: usize = 2 << 20;

/// A developer with a credential and an idea of where the platform is.
#[derive(Debug, Clone)]
pub struct Developer {
    https: Https,
    token: Option<String>,
}

impl Platform {
    /// A developer who shows the operators' token.
    #[must_use]
    pub fn developer(&self) -> Developer {
        Developer { https: self.https(), token: Some(self.operator("debug-api")) }
    }

    /// A developer who shows this, or nothing.
    #[must_use]
    pub fn stranger(&self, token: Option<&str>) -> Developer {
        Developer { https: self.https(), token: token.map(str::to_owned) }
    }
}

impl Developer {
    /// Any call below `/debug`.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn call(&self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        if let Some(token) = &self.token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answer = self.https.send(Protocol::Http1, "", request).await;
        answer.unwrap_or_else(|failure| panic!("no answer from {path}: {failure:?}"))
    }

    /// A request below `/debug` with header fields of its own.
    ///
    /// # Errors
    /// When there is no whole answer.
    ///
    /// # Panics
    /// When a field is none.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.https.send(Protocol::Http1, "", request.body(Full::new(body.into())).unwrap()).await
    }

    /// A request of which only the first bytes of its body are sent. It goes on with what is written to the stream, and breaks
    /// off when that is dropped.
    ///
    /// # Errors
    /// When there is no connection, or it is lost before all is written.
    pub async fn begin(
        &self,
        (method, path): (&str, &str),
        fields: &[(&str, &str)],
        (bytes, announced): (&[u8], usize),
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {announced}\r\n",
            self.https.authority("")
        );
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let bearer = token.as_deref().map(|token| ("authorization", token));
        for (name, value) in fields.iter().copied().chain(bearer) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut stream = self.https.tls("", &[b"http/1.1"]).await?;
        let lost = |error: std::io::Error| Failure::InFlight(error.to_string());
        stream.write_all(head.as_bytes()).await.map_err(lost)?;
        stream.write_all(bytes).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        Ok(stream)
    }

    /// GET below an application.
    pub async fn get(&self, id: &str, what: &str) -> Answer {
        self.call(Method::GET, &format!("/debug/application/{id}{what}"), "text/plain", "").await
    }

    /// POST below an application, without a body.
    pub async fn post(&self, id: &str, what: &str) -> Answer {
        self.call(Method::POST, &format!("/debug/application/{id}{what}"), "application/json", "{}").await
    }

    /// DELETE of an application.
    pub async fn delete(&self, id: &str) -> Answer {
        self.call(Method::DELETE, &format!("/debug/application/{id}"), "text/plain", "").await
    }

    /// Asks for an application of this name, as the contract's client names it.
    pub async fn create(&self, name: &str) -> Answer {
        let body = json!({
            "appId": format!("debug-{name}"), "displayName": format!("Debug: {name}"), "hostName": format!("{name}.debug"),
            "dbName": format!("debug_{name}.db"),
        });
        self.call(Method::POST, "/debug/application", "application/json", body.to_string()).await
    }

    /// Asks for an application and returns its id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn created(&self, name: &str) -> String {
        let answer = self.create(name).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Sends one piece of a package.
    pub async fn chunk(&self, id: &str, index: i64, total: i64, hash: &str, bytes: &[u8]) -> Answer {
        let (kind, body) = form(
            &[("chunkIndex", &index.to_string()), ("totalChunks", &total.to_string()), ("fileHash", hash)],
            bytes,
        );
        self.call(Method::POST, &format!("/debug/application/{id}/upload"), &kind, body).await
    }

    /// Sends a whole package, in order.
    ///
    /// # Panics
    /// When a piece is refused.
    pub async fn upload(&self, id: &str, package: &[u8]) {
        let (hash, pieces) = (md5(package), pieces(package));
        for (index, piece) in pieces.iter().enumerate() {
            let answer = self
                .chunk(id, i64::try_from(index).unwrap(), i64::try_from(pieces.len()).unwrap(), &hash, piece)
                .await;
            assert_eq!(answer.status, 200, "chunk {index}: {}", answer.text());
        }
    }

    /// Creates, uploads and installs; returns the application's id.
    ///
    /// # Panics
    /// When a step is refused.
    pub async fn push(&self, name: &str, package: &[u8]) -> String {
        let id = self.created(name).await;
        self.upload(&id, package).await;
        let answer = self.post(&id, "/install").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        id
    }

    /// All applications.
    ///
    /// # Panics
    /// When they are not told.
    pub async fn list(&self) -> Vec<Value> {
        let answer = self.call(Method::GET, "/debug/application", "text/plain", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["applications"].as_array().unwrap().clone()
    }

    /// Waits until its status says so.
    ///
    /// # Panics
    /// When it never does.
    pub async fn until(&self, id: &str, word: &str) {
        soon(word, async { while self.status(id).await["status"] != word {} }).await;
    }

    /// The application's status.
    ///
    /// # Panics
    /// When it has none.
    pub async fn status(&self, id: &str) -> Value {
        let answer = self.get(id, "/status").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

/// A package in pieces.
#[must_use]
pub fn pieces(package: &[u8]) -> Vec<&[u8]> {
    package.chunks(CHUNK).collect()
}

/// A multipart form: its fields, and the file part `chunk`.
#[must_use]
pub fn form(fields: &[(&str, &str)], chunk: &[u8]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "----probe-boundary-6f1d";
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .bytes(),
        );
    }
    let head = "Content-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"\r\nContent-Type: application/octet-stream";
    body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").bytes());
    body.extend_from_slice(chunk);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}
