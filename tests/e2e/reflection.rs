//! A client that knows nothing but a socket and a token finds out what a daemon can do, and calls it.

use std::collections::BTreeSet;

use nexushub_e2e::{
    DAEMONS, Platform,
    grpc::{self, Credentialed},
};
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Every service that reflection v1 lists.
async fn listed_v1(on: Credentialed) -> BTreeSet<String> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers =
        ServerReflectionClient::new(on).server_reflection_info(tokio_stream::iter([question])).await.unwrap();
    match answers.into_inner().message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Every service that reflection v1alpha lists.
async fn listed_v1alpha(on: Credentialed) -> BTreeSet<String> {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers =
        ServerReflectionClient::new(on).server_reflection_info(tokio_stream::iter([question])).await.unwrap();
    match answers.into_inner().message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The methods of a service, as reflection describes it.
async fn described(on: Credentialed, service: &str) -> Vec<String> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let wanted = MessageRequest::FileContainingSymbol(service.to_owned());
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
    let answers =
        ServerReflectionClient::new(on).server_reflection_info(tokio_stream::iter([question])).await.unwrap();
    let Some(MessageResponse::FileDescriptorResponse(files)) =
        answers.into_inner().message().await.unwrap().unwrap().message_response
    else {
        panic!("no description of {service}");
    };
    let files =
        files.file_descriptor_proto.iter().map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap());
    let mut methods = Vec::new();
    for file in files {
        for found in
            file.service.iter().filter(|found| service == format!("{}.{}", file.package(), found.name()))
        {
            methods.extend(found.method.iter().map(|method| format!("/{service}/{}", method.name())));
        }
    }
    methods
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflection_client_lists_describes_and_calls_every_service_over_its_unix_socket() {
    let platform = Platform::start();
    for daemon in DAEMONS {
        let listed = listed_v1(platform.operate(daemon)).await;
        let alpha = listed_v1alpha(platform.operate(daemon)).await;
        let ours = |names: &BTreeSet<String>| {
            names.iter().filter(|name| !name.contains("reflection")).cloned().collect::<Vec<_>>()
        };
        assert_eq!(ours(&listed), ours(&alpha), "{daemon}");
        assert!(listed.contains("grpc.health.v1.Health"), "{daemon}: {listed:?}");
        for service in grpc::services(daemon) {
            assert!(listed.contains(&service), "{daemon}: {listed:?}");
        }
        for service in &listed {
            let methods = described(platform.operate(daemon), service).await;
            assert!(!methods.is_empty(), "{daemon} does not describe {service}");
            for path in methods {
                let code = grpc::call_with(platform.operate(daemon), &path, Vec::new()).await;
                assert!(
                    ![Code::Unimplemented, Code::Unauthenticated, Code::PermissionDenied].contains(&code),
                    "{path}: {code:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_and_its_service_say_that_they_serve() {
    let platform = Platform::start();
    for daemon in DAEMONS {
        for service in grpc::services(daemon).into_iter().chain([String::new()]) {
            let request = HealthCheckRequest { service: service.clone() };
            let answer =
                HealthClient::new(platform.operate(daemon)).check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{daemon} {service:?}");
        }
    }
}

/// In another language: `NEXUSHUB_PYTHON` names an interpreter that has grpcio and grpcio-reflection.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_python_finds_its_way_by_reflection_alone() {
    let python = std::env::var_os("NEXUSHUB_PYTHON").filter(|path| std::path::Path::new(path).exists());
    let Some(python) = python else {
        assert!(std::env::var_os("CI").is_none(), "NEXUSHUB_PYTHON names no interpreter");
        return println!("skipped: NEXUSHUB_PYTHON names no interpreter");
    };
    let platform = Platform::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/grpc_client.py");
    let output = tokio::process::Command::new(python).arg(script).arg(platform.run()).output();
    let output = nexushub_e2e::soon("the client in Python", output).await.unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}
