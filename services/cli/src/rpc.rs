//! Calling the daemons as an operator: gRPC over their Unix sockets, with the operators' tokens.

use std::{io, path::Path, time::Duration};

use nexushub_chassis::client::GrpcChannel;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{failure::Failure, place::Place};

/// How long a daemon may take to say whether it serves.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to a daemon.
pub(crate) fn channel(place: &Place, daemon: &str) -> Result<GrpcChannel, Failure> {
    Ok(GrpcChannel::new(place.socket(daemon), Some(&place.token(daemon)?)))
}

/// A refused or failed call, for people.
pub(crate) fn failed(place: &Place, daemon: &str, status: &Status) -> Failure {
    let away = matches!(status.code(), Code::Unavailable | Code::Cancelled) || lost(status).is_some();
    let hint = match status.code() {
        code if away || code == Code::DeadlineExceeded => format!("see {}", place.command("status")),
        Code::Unauthenticated | Code::PermissionDenied => {
            "the platform may have been started anew just now; try again".to_owned()
        }
        Code::NotFound => format!("see {} for what there is", place.command("status")),
        _ => format!("see {}", place.command(&format!("logs {daemon}"))),
    };
    Failure { passing: away, ..Failure::new(format!("{daemon}: {}", said(status)), hint) }
}

/// What became of the connection, where that is what failed. A daemon that is killed amid a call leaves a status of an unknown code.
fn lost(status: &Status) -> Option<&io::Error> {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).filter_map(|error| error.downcast_ref()).last()
}

/// What a status says. tonic's own words for a socket that nobody serves say little, so the cause is added.
pub(crate) fn said(status: &Status) -> String {
    match lost(status) {
        Some(error) => format!("not reachable: {error}"),
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// Whether a daemon serves; else why not.
pub(crate) async fn health(place: &Place, daemon: &str) -> Result<(), String> {
    let socket = place.socket(daemon);
    if !is_there(&socket) {
        return Err(format!("no socket at {}", socket.display()));
    }
    let channel = channel(place, daemon).map_err(|failure| failure.message)?;
    let mut client = HealthClient::new(channel);
    let call = client.check(HealthCheckRequest::default());
    match tokio::time::timeout(HEALTH_TIMEOUT, call).await {
        Err(_) => Err(format!("no answer within {} s", HEALTH_TIMEOUT.as_secs())),
        Ok(Err(status)) => Err(said(&status)),
        Ok(Ok(answer)) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("says {}", other.as_str_name().to_lowercase().replace('_', " "))),
        },
    }
}

fn is_there(socket: &Path) -> bool {
    std::fs::symlink_metadata(socket).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::Global;

    #[tokio::test]
    async fn a_daemon_that_is_killed_amid_a_call_may_be_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let place =
            Place::find(&Global { home: Some(folder.path().to_owned()), ..Default::default() }).unwrap();
        let socket = folder.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let killed = async {
            let (connection, _) = listener.accept().await.unwrap();
            connection.readable().await.unwrap(); // and what was said is never read
        };
        let mut client = HealthClient::new(GrpcChannel::new(socket, None));
        let call = client.check(HealthCheckRequest::default());
        let (answer, ()) = tokio::join!(call, killed);
        let failure = failed(&place, "debug-api", &answer.unwrap_err());
        assert!(failure.passing && failure.message.contains("not reachable"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_a_reason_and_not_a_hang() {
        let folder = tempfile::tempdir().unwrap();
        let place =
            Place::find(&Global { home: Some(folder.path().to_owned()), ..Default::default() }).unwrap();
        assert!(health(&place, "proxy").await.unwrap_err().contains("no socket"));
        std::fs::create_dir_all(place.run.join("operator")).unwrap();
        std::fs::write(place.run.join("operator/proxy"), "00").unwrap();
        let socket = place.socket("proxy");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let said = health(&place, "proxy").await.unwrap_err();
        assert!(said.contains("not reachable") && said.contains("refused"), "{said}");
    }
}
