//! Who may say what: every method of every daemon refuses whoever can't show the right credential.

use nexushub_e2e::{
    DAEMONS, Platform,
    grpc::{call, methods},
};
use nexushub_launch::secret::GRANTS;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_credential_is_refused_by_every_method_of_every_service() {
    let platform = Platform::start();
    let wrong = "0".repeat(64);
    for daemon in DAEMONS {
        let all = methods(daemon);
        assert!(all.iter().any(|method| method.path.contains("Reflection")) && all.len() >= 5, "{all:?}");
        for method in all {
            for token in [None, Some(""), Some("nonsense"), Some(wrong.as_str())] {
                let code = call(platform.grpc(daemon, token), &method).await;
                assert_eq!(code, Code::Unauthenticated, "{daemon} {} with {token:?}", method.path);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_for_one_daemon_is_worth_nothing_at_another() {
    let platform = Platform::start();
    for server in DAEMONS {
        for method in methods(server) {
            for other in DAEMONS.into_iter().filter(|other| *other != server) {
                let code = call(platform.grpc(server, Some(&platform.operator(other))), &method).await;
                assert_eq!(
                    code,
                    Code::Unauthenticated,
                    "operators' token for {other} at {server} {}",
                    method.path
                );
            }
            for (caller, meant, _) in GRANTS.iter().filter(|(_, meant, _)| *meant != server) {
                let code = call(platform.grpc(server, Some(&platform.token(caller, meant))), &method).await;
                assert_eq!(
                    code,
                    Code::Unauthenticated,
                    "{caller}'s token for {meant} at {server} {}",
                    method.path
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_may_call_the_methods_it_was_granted_and_no_others() {
    let platform = Platform::start();
    for (caller, server, rights) in GRANTS.iter().filter(|(_, _, rights)| *rights != "http") {
        for method in methods(server).iter().filter(|method| method.path.starts_with("/nexushub.")) {
            let granted = rights.split(',').any(|right| right.trim() == method.path.trim_start_matches('/'));
            let code = call(platform.grpc(server, Some(&platform.token(caller, server))), method).await;
            let refused = matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            assert_eq!(granted, !refused, "{caller} at {server} {}: {code:?}", method.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_may_call_everything_and_nothing_is_unimplemented() {
    let platform = Platform::start();
    for daemon in DAEMONS {
        for method in methods(daemon) {
            let code = call(platform.operate(daemon), &method).await;
            let refused = [
                Code::PermissionDenied,
                Code::Unauthenticated,
                Code::Unimplemented,
                Code::Unknown,
                Code::Unavailable,
            ];
            assert!(!refused.contains(&code), "{daemon} {}: {code:?}", method.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_api_knows_only_who_shows_the_operators_token() {
    let platform = Platform::start();
    let id = platform.developer().created("shop").await;
    let other = platform.operator("provider");
    for token in [None, Some("nonsense"), Some(other.as_str())] {
        let stranger = platform.stranger(token);
        assert_eq!(stranger.create("mine").await.status, 401, "create with {token:?}");
        for what in ["", "/status", "/logs", "/upload/status"] {
            assert_eq!(stranger.get(&id, what).await.status, 401, "GET {what} with {token:?}");
        }
        for what in ["/install", "/install-dev", "/install-package", "/stop"] {
            assert_eq!(stranger.post(&id, what).await.status, 401, "POST {what} with {token:?}");
        }
        assert_eq!(stranger.chunk(&id, 0, 1, "x", b"x").await.status, 401, "upload with {token:?}");
        assert_eq!(stranger.delete(&id).await.status, 401, "DELETE with {token:?}");
    }
    assert_eq!(platform.developer().get(&id, "/status").await.status, 200, "and nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_before_a_clean_stop_is_worth_nothing_after_it() {
    let mut platform = Platform::start();
    let old = platform.operator("provider");
    assert!(platform.stop().success());
    platform.start_supervisor();
    assert_ne!(platform.operator("provider"), old);
    for method in methods("provider") {
        assert_eq!(
            call(platform.grpc("provider", Some(&old)), &method).await,
            Code::Unauthenticated,
            "{}",
            method.path
        );
    }
}
