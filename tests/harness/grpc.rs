//! gRPC over a daemon's Unix socket, with whatever credential a test wants to show; and every method that a daemon has, read
//! from the contract's own descriptors.

use std::{fs, path::PathBuf};

use bytes::{Buf, BufMut};
use hyper_util::rt::TokioIo;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{HANG, Platform};

/// A connection on which every call shows the same credential.
pub type Credentialed = InterceptedService<Channel, Bearer>;

/// Shows a token, or none.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Platform {
    /// A connection to a daemon, made when it is first used and again when it broke.
    ///
    /// # Panics
    /// When the token can't stand in a header.
    #[must_use]
    pub fn grpc(&self, daemon: &str, token: Option<&str>) -> Credentialed {
        let path = self.run().join(format!("{daemon}.sock"));
        let value = token.map(|token| format!("Bearer {token}").parse().unwrap());
        InterceptedService::new(channel(path), Bearer(value))
    }

    /// A connection to a daemon as an operator.
    #[must_use]
    pub fn operate(&self, daemon: &str) -> Credentialed {
        self.grpc(daemon, Some(&self.operator(daemon)))
    }

    /// The operators' token for a daemon.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn operator(&self, daemon: &str) -> String {
        fs::read_to_string(self.run().join("operator").join(daemon)).unwrap().trim().to_owned()
    }

    /// The token that one daemon shows to another.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn token(&self, caller: &str, server: &str) -> String {
        let path = nexushub_launch::secret::credentials(&self.run(), caller).join(format!("token.{server}"));
        fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

fn channel(path: PathBuf) -> Channel {
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").timeout(HANG).connect_with_connector_lazy(connect)
}

/// One method of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    /// Whether it answers with a stream.
    pub streams: bool,
}

/// The services of a daemon that are the platform's own.
///
/// # Panics
/// When the contract's descriptors are torn.
#[must_use]
pub fn services(daemon: &str) -> Vec<String> {
    let package = format!("nexushub.{}.v1", daemon.replace('-', ""));
    let set = FileDescriptorSet::decode(nexushub_proto::DESCRIPTORS).unwrap();
    let files = set.file.iter().filter(|file| file.package() == package);
    files
        .flat_map(|file| file.service.iter().map(|service| format!("{package}.{}", service.name())))
        .collect()
}

/// Every method of a daemon: its own service's, and those of health and reflection.
///
/// # Panics
/// When the contract's descriptors are torn.
#[must_use]
pub fn methods(daemon: &str) -> Vec<Method> {
    let own = format!("nexushub.{}.v1", daemon.replace('-', ""));
    let sets: [&[u8]; 4] = [
        nexushub_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file);
    let files = files.filter(|file| file.package() == own || file.package().starts_with("grpc."));
    let mut methods = Vec::new();
    for file in files {
        for service in &file.service {
            methods.extend(service.method.iter().map(|method| Method {
                path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                streams: method.server_streaming(),
            }));
        }
    }
    methods
}

/// Calls a method with an empty message and returns how it ended: a stream counts as answered with its first message.
pub async fn call(on: Credentialed, method: &Method) -> Code {
    call_with(on, &method.path, Vec::new()).await
}

/// Calls a path with any bytes as its message.
///
/// # Panics
/// When the path is none.
pub async fn call_with(on: Credentialed, path: &str, message: Vec<u8>) -> Code {
    let mut client = Grpc::new(on);
    if let Err(error) = client.ready().await {
        panic!("could not connect for {path}: {error}");
    }
    let request = Request::new(tokio_stream::iter([message]));
    let answer = crate::soon(path, client.streaming(request, path.parse().unwrap(), Bytes)).await;
    match answer {
        Err(status) => status.code(),
        Ok(answer) => match crate::soon(path, answer.into_inner().message()).await {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        },
    }
}

/// Messages as the bytes they are.
#[derive(Debug, Default, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}
