//! The provider's stream, turned into whole desired sets: snapshot, then diffs, joined again whenever it breaks. A provider
//! that can't be reached changes nothing. Each new set is handed to the owner task at once and written to disk after it.

use std::{path::PathBuf, sync::Arc};

use nexushub_chassis::{client::GrpcChannel, retry::Retry};
use nexushub_proto::provider::{
    Instance, WatchDesiredRequest, WatchDesiredResponse, provider_service_client::ProviderServiceClient,
    watch_desired_response::Event as Said,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Status,
    client::GrpcService,
    codegen::{Body, Bytes, StdError},
};

use super::{Desired, DesiredSet, store};
use crate::{ids::InstanceId, manager::Event};

/// Longest message of the provider that is taken: a snapshot of as many instances as may be managed, each with an environment
/// as large as the provider lets it have, twice over.
const MESSAGE_BYTES: usize = 64 << 20;

/// Bounds on what is taken over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most instances.
    pub instances: usize,
    /// Largest environment of one.
    pub env_bytes: u32,
}

/// Follows the provider until nobody wants the sets any more.
pub(crate) async fn follow(
    channel: GrpcChannel,
    limits: Limits,
    known: Option<DesiredSet>,
    path: PathBuf,
    events: mpsc::Sender<Event>,
) {
    let (latest, unsaved) = watch::channel(Arc::new(DesiredSet::new()));
    tokio::spawn(keep(path, unsaved));
    let mut client = client(channel);
    let mut contact = Contact::default();
    let mut state = known;
    while !events.is_closed() {
        let outcome = match client.watch_desired(WatchDesiredRequest {}).await {
            Err(status) => Err(status),
            Ok(reply) => {
                let joined = Joined { state: &mut state, limits, snapshot_seen: false };
                joined.listen(reply.into_inner(), &mut contact, &latest, &events).await
            }
        };
        if contact.lost() {
            let error =
                outcome.err().map_or_else(|| "the stream ended".to_owned(), |status| status.to_string());
            tracing::warn!(
                peer = "provider",
                error,
                "the provider cannot be heard; what is desired stays as it was"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(contact.retry.wait()) => {}
            () = events.closed() => {}
        }
    }
}

fn client<T>(channel: T) -> ProviderServiceClient<T>
where
    T: GrpcService<tonic::body::Body, Error: Into<StdError>>,
    T::ResponseBody: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    ProviderServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
}

/// Whether the provider is heard, how soon it is tried again, and what has been said of that. A stream that could be joined is
/// nothing yet; only its first message is.
#[derive(Debug, Default)]
struct Contact {
    retry: Retry,
    heard: bool,
    /// That it can't be heard has been said.
    told: bool,
}

impl Contact {
    /// A message came.
    fn heard(&mut self) {
        if !self.heard {
            tracing::info!(peer = "provider", "the provider is heard");
            *self = Self { heard: true, ..Self::default() };
        }
    }

    /// An attempt or a stream ended; whether that is to be said.
    fn lost(&mut self) -> bool {
        self.heard = false;
        !std::mem::replace(&mut self.told, true)
    }
}

/// Writes the newest set whenever there is one.
async fn keep(path: PathBuf, mut unsaved: watch::Receiver<Arc<DesiredSet>>) {
    while unsaved.changed().await.is_ok() {
        let set = Arc::clone(&unsaved.borrow_and_update());
        let to = path.clone();
        let saved = tokio::task::spawn_blocking(move || store::save(&to, &set)).await;
        if let Ok(Err(error)) = saved {
            tracing::error!(path = %path.display(), error = %error, "could not keep the desired instances on disk");
        }
    }
}

/// One joined stream.
struct Joined<'a> {
    state: &'a mut Option<DesiredSet>,
    limits: Limits,
    snapshot_seen: bool,
}

impl Joined<'_> {
    /// Hands each new set on until the stream ends.
    async fn listen(
        mut self,
        mut stream: impl Stream<Item = Result<WatchDesiredResponse, Status>> + Unpin,
        contact: &mut Contact,
        latest: &watch::Sender<Arc<DesiredSet>>,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Status> {
        while let Some(message) = stream.next().await.transpose()? {
            contact.heard();
            if !self.take(message) {
                continue;
            }
            let set = self.state.clone().unwrap_or_default();
            latest.send_replace(Arc::new(set.clone()));
            if events.send(Event::Desired(set)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes one message over. Whether there is a set to hand on that differs from the one before; the first snapshot always
    /// is, since only it says that the provider was heard.
    fn take(&mut self, message: WatchDesiredResponse) -> bool {
        match message.event {
            Some(Said::Snapshot(snapshot)) => {
                let set: DesiredSet =
                    snapshot.instances.into_iter().filter_map(|one| self.judge(one)).collect();
                let first = !std::mem::replace(&mut self.snapshot_seen, true);
                let set = bounded(set, self.limits.instances);
                let differs = self.state.as_ref() != Some(&set);
                *self.state = Some(set);
                first || differs
            }
            Some(Said::Put(one)) if self.snapshot_seen => {
                let Some((id, desired)) = self.judge(one) else { return false };
                let set = self.state.get_or_insert_default();
                if set.len() >= self.limits.instances && !set.contains_key(&id) {
                    tracing::error!(instance = %id, limit = self.limits.instances, "too many instances; this one is left out");
                    return false;
                }
                let differs = set.get(&id) != Some(&desired);
                set.insert(id, desired);
                differs
            }
            Some(Said::RemovedId(id)) if self.snapshot_seen => {
                let id = InstanceId::parse(&id).ok();
                id.is_some_and(|id| self.state.get_or_insert_default().remove(&id).is_some())
            }
            Some(Said::Put(_) | Said::RemovedId(_)) | None => {
                tracing::warn!(peer = "provider", "a message that makes no sense here is left out");
                false
            }
        }
    }

    fn judge(&self, one: Instance) -> Option<(InstanceId, Arc<Desired>)> {
        match Desired::from_proto(one, self.limits.env_bytes) {
            Ok(desired) => Some((desired.id.clone(), Arc::new(desired))),
            Err(error) => {
                tracing::error!(peer = "provider", error = %error, "an instance is left out");
                None
            }
        }
    }
}

fn bounded(mut set: DesiredSet, limit: usize) -> DesiredSet {
    while set.len() > limit
        && let Some((id, _)) = set.pop_last()
    {
        tracing::error!(instance = %id, limit, "too many instances; this one is left out");
    }
    set
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use hyper::{Request, Response};
    use nexushub_proto::provider::DesiredSnapshot;
    use prost::Message;
    use tonic::codegen::Service;

    use super::*;
    use crate::desired::tests::proto;

    fn ids(state: Option<&DesiredSet>) -> Vec<&str> {
        state.unwrap().keys().map(InstanceId::as_str).collect()
    }

    fn message(event: Said) -> WatchDesiredResponse {
        WatchDesiredResponse { revision: 1, event: Some(event) }
    }

    fn snapshot(names: &[&str]) -> WatchDesiredResponse {
        message(Said::Snapshot(DesiredSnapshot { instances: names.iter().map(|name| proto(name)).collect() }))
    }

    /// Answers every call with one message.
    struct Says(Bytes);

    impl Service<Request<tonic::body::Body>> for Says {
        type Response = Response<Full<Bytes>>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<tonic::body::Body>) -> Self::Future {
            let reply = Response::builder().header("content-type", "application/grpc");
            std::future::ready(Ok(reply.body(Full::new(self.0.clone())).unwrap()))
        }
    }

    #[tokio::test]
    async fn a_snapshot_as_large_as_the_provider_may_send_is_taken() {
        let mut large = proto("a");
        large.env.insert("A".into(), "x".repeat(33 << 20));
        let said = message(Said::Snapshot(DesiredSnapshot { instances: vec![large] })).encode_to_vec();
        let head = [&[0][..], &u32::try_from(said.len()).unwrap().to_be_bytes()].concat();
        let mut client = client(Says([head, said].concat().into()));
        let mut stream = client.watch_desired(WatchDesiredRequest {}).await.unwrap().into_inner();
        let Some(Said::Snapshot(heard)) = stream.message().await.unwrap().unwrap().event else {
            unreachable!()
        };
        assert_eq!(heard.instances.len(), 1);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_before_its_first_message_is_tried_ever_later_and_told_once() {
        let (latest, _unsaved) = watch::channel(Arc::default());
        let (events, _inbox) = mpsc::channel(8);
        let mut contact = Contact::default();
        let (mut state, mut told, mut waits) = (None, Vec::new(), Vec::new());
        let broken = || Err(Status::out_of_range("the message is too large"));
        for stream in [
            vec![broken()],
            vec![broken()],
            vec![broken()],
            vec![Ok(snapshot(&["a"])), broken()],
            vec![broken()],
        ] {
            let limits = Limits { instances: 3, env_bytes: 100 };
            let joined = Joined { state: &mut state, limits, snapshot_seen: false };
            let outcome = joined.listen(tokio_stream::iter(stream), &mut contact, &latest, &events).await;
            assert!(outcome.is_err());
            told.push(contact.lost());
            waits.push(contact.retry.wait().as_millis());
        }
        assert_eq!(told, [true, false, false, true, false]);
        assert_eq!(waits, [10, 20, 40, 10, 20]);
    }

    #[test]
    fn diffs_count_only_after_a_snapshot_and_only_if_they_change_something() {
        let mut state = None;
        let mut joined = Joined {
            state: &mut state,
            limits: Limits { instances: 3, env_bytes: 100 },
            snapshot_seen: false,
        };
        assert!(!joined.take(message(Said::Put(proto("early")))));
        assert!(joined.take(snapshot(&["a", "../x", "b"])), "the first snapshot is always news");
        assert!(!joined.take(snapshot(&["a", "b"])));
        assert!(!joined.take(message(Said::Put(proto("a")))));
        assert!(joined.take(message(Said::Put(proto("c")))));
        assert!(!joined.take(message(Said::Put(proto("d")))), "over the limit");
        assert!(!joined.take(message(Said::Put(proto("")))));
        assert!(joined.take(message(Said::RemovedId("a".into()))));
        assert!(!joined.take(message(Said::RemovedId("nobody".into()))));
        assert!(!joined.take(WatchDesiredResponse { revision: 9, event: None }));
        assert_eq!(ids(state.as_ref()), ["b", "c"]);
    }

    #[test]
    fn a_snapshot_over_the_limit_keeps_the_first_ones() {
        let mut state = None;
        let mut joined = Joined {
            state: &mut state,
            limits: Limits { instances: 2, env_bytes: 100 },
            snapshot_seen: false,
        };
        assert!(joined.take(snapshot(&["c", "a", "b"])));
        assert_eq!(ids(state.as_ref()), ["a", "b"]);
    }
}
