//! The whole server on a real socket, called as other daemons call it.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, sync::Arc};

use nexushub_launch::secret::{OPERATOR, Secret, credentials};
use nexushub_proto::proxy::{
    GetCountersRequest, GetCountersResponse, GetMetricsRequest, GetMetricsResponse, ListRoutesRequest,
    ListRoutesResponse,
    proxy_service_client::ProxyServiceClient,
    proxy_service_server::{ProxyService, ProxyServiceServer},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient, health_server::HealthServer},
    server::{HealthReporter, HealthService},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::{client::GrpcChannel, credentials::Credentials};

/// Answers counters at once, and routes when it is told to.
#[derive(Default)]
struct Fake {
    called: Arc<Notify>,
    go: Arc<Notify>,
}

#[tonic::async_trait]
impl ProxyService for Fake {
    async fn list_routes(
        &self,
        _: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        self.called.notify_one();
        self.go.notified().await;
        Ok(Response::new(Default::default()))
    }

    async fn get_counters(
        &self,
        _: Request<GetCountersRequest>,
    ) -> Result<Response<GetCountersResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_metrics(
        &self,
        _: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

struct Server {
    folder: PathBuf,
    secret: Secret,
    called: Arc<Notify>,
    go: Arc<Notify>,
    drain: tokio::sync::watch::Sender<bool>,
    ended: JoinHandle<Result<(), Fault>>,
}

impl Server {
    fn start(name: &str, rpc: Rpc) -> Self {
        let folder = std::env::temp_dir().join(format!("nexushub-serve-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = Secret::generate().unwrap();
        secret.write_credentials(&folder, None).unwrap();
        let accepted = Credentials::load(&credentials(&folder, "proxy")).unwrap();
        let (drain, shutdown) = Shutdown::by_hand();
        let gate = Gate::new(accepted, vec![], Duration::from_millis(rpc.call_timeout_ms), rpc.max_calls);
        let health = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
        let listener = UnixListener::bind(folder.join("proxy.sock")).unwrap();
        let fake = Fake::default();
        let (called, go) = (Arc::clone(&fake.called), Arc::clone(&fake.go));
        let parts = Parts { gate, health, listener, shutdown, rpc };
        let ended = tokio::spawn(serve(ProxyServiceServer::new(fake), parts));
        Self { folder, secret, called, go, drain, ended }
    }

    fn channel(&self, token: &str) -> GrpcChannel {
        GrpcChannel::new(self.folder.join("proxy.sock"), Some(token))
    }

    fn operator(&self) -> GrpcChannel {
        self.channel(&self.secret.token(OPERATOR, "proxy"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn reflected(channel: GrpcChannel) -> Result<Vec<String>, Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let call =
        ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(request)).await?;
    let answer = call.into_inner().next().await.unwrap()?;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        return Ok(vec![]);
    };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}

#[tokio::test]
async fn an_operator_calls_everything_and_reflection_lists_it() {
    let server = Server::start("operator", Rpc::default());
    ProxyServiceClient::new(server.operator()).get_counters(GetCountersRequest {}).await.unwrap();
    HealthClient::new(server.operator()).check(HealthCheckRequest::default()).await.unwrap();
    let names = reflected(server.operator()).await.unwrap();
    for expected in
        ["nexushub.proxy.v1.ProxyService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("procmgr")), "only what is served: {names:?}");
}

#[tokio::test]
async fn nobody_unknown_reaches_any_service() {
    let server = Server::start("unknown", Rpc::default());
    let others = server.secret.token("proxy", "procmgr");
    let stale = Secret::generate().unwrap().token(OPERATOR, "proxy");
    for token in ["", "x", &others, &stale] {
        let channel = server.channel(token);
        let code = ProxyServiceClient::new(channel.clone())
            .get_counters(GetCountersRequest {})
            .await
            .unwrap_err()
            .code();
        assert_eq!(code, Code::Unauthenticated, "service, {token:?}");
        let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
        assert_eq!(health.unwrap_err().code(), Code::Unauthenticated, "health, {token:?}");
        assert_eq!(
            reflected(channel).await.unwrap_err().code(),
            Code::Unauthenticated,
            "reflection, {token:?}"
        );
    }
}

#[tokio::test]
async fn a_call_beyond_the_limit_is_refused_and_the_place_comes_back() {
    let server = Server::start("limit", Rpc { max_calls: 1, ..Rpc::default() });
    let mut client = ProxyServiceClient::new(server.operator());
    let held = tokio::spawn({
        let mut client = client.clone();
        async move { client.list_routes(ListRoutesRequest {}).await }
    });
    server.called.notified().await;
    let refused = client.get_counters(GetCountersRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    server.go.notify_one();
    held.await.unwrap().unwrap();
    client.get_counters(GetCountersRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_at_its_deadline() {
    let server = Server::start("deadline", Rpc { call_timeout_ms: 1, ..Rpc::default() });
    let late =
        ProxyServiceClient::new(server.operator()).list_routes(ListRoutesRequest {}).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_its_turn() {
    let server = Server::start("connections", Rpc { max_connections: 1, ..Rpc::default() });
    let first = server.operator();
    ProxyServiceClient::new(first.clone()).get_counters(GetCountersRequest {}).await.unwrap();
    let second = tokio::spawn({
        let mut client = ProxyServiceClient::new(server.operator());
        async move { client.get_counters(GetCountersRequest {}).await }
    });
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_call_that_never_ends() {
    let mut server = Server::start("drain", Rpc { drain_ms: 1, ..Rpc::default() });
    let mut client = ProxyServiceClient::new(server.operator());
    let _held = tokio::spawn(async move { client.list_routes(ListRoutesRequest {}).await });
    server.called.notified().await;
    server.drain.send_replace(true);
    (&mut server.ended).await.unwrap().unwrap();
}
