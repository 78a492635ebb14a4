//! The two daemons that this one calls: provider, to be told what should run, and procmgr, to be asked what does; and the admin app.
//! A trait, so that everything above can be tried without them.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use nexushub_chassis::client::{Clients, GrpcChannel};
use nexushub_proto::{
    procmgr::{
        GetInstanceRequest, InstanceStatus, ReadLogRequest, ReadLogResponse, WatchInstancesRequest,
        WatchInstancesResponse, procmgr_service_client::ProcmgrServiceClient,
    },
    provider::{
        Instance, PutInstanceRequest, RemoveInstanceRequest, provider_service_client::ProviderServiceClient,
    },
};
use tonic::{Code, Status};

use crate::register::{Registration, Way};

/// Longest message from procmgr: a snapshot of every instance, each with its last words.
const NEWS_BYTES: usize = 64 << 20;

/// A call under way.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send + 'a>>;
/// A stream that another daemon sends.
pub(crate) type Flow<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is asked of the other daemons.
pub(crate) trait Peers: Send + Sync + 'static {
    fn put(&self, instance: Instance) -> Call<'_, ()>;
    fn remove(&self, id: String) -> Call<'_, ()>;
    /// Has the admin app take an application over; see `register.rs` for what its refusals mean.
    fn register(&self, registration: Registration) -> Call<'_, ()>;
    fn watch(&self) -> Call<'_, Flow<WatchInstancesResponse>>;
    fn read_log(&self, request: ReadLogRequest) -> Call<'_, Flow<ReadLogResponse>>;
    /// One instance, with what it uses.
    fn instance(&self, id: String) -> Call<'_, InstanceStatus>;
}

/// The real ones.
pub(crate) struct Daemons {
    provider: ProviderServiceClient<GrpcChannel>,
    procmgr: ProcmgrServiceClient<GrpcChannel>,
    admin: Way,
    /// For logs, whose readers may be slow.
    logs: ProcmgrServiceClient<GrpcChannel>,
}

impl Daemons {
    pub(crate) fn new(clients: &Clients, admin: Way) -> Self {
        Self {
            provider: ProviderServiceClient::new(clients.channel("provider")),
            procmgr: ProcmgrServiceClient::new(clients.channel("procmgr"))
                .max_decoding_message_size(NEWS_BYTES),
            admin,
            logs: ProcmgrServiceClient::new(clients.standing("procmgr")),
        }
    }
}

impl Peers for Daemons {
    fn put(&self, instance: Instance) -> Call<'_, ()> {
        let mut provider = self.provider.clone();
        Box::pin(async move {
            provider.put_instance(PutInstanceRequest { instance: Some(instance) }).await?;
            Ok(())
        })
    }

    fn remove(&self, id: String) -> Call<'_, ()> {
        let mut provider = self.provider.clone();
        Box::pin(async move {
            provider.remove_instance(RemoveInstanceRequest { id }).await?;
            Ok(())
        })
    }

    fn register(&self, registration: Registration) -> Call<'_, ()> {
        Box::pin(async move { self.admin.register(&registration).await })
    }

    fn watch(&self) -> Call<'_, Flow<WatchInstancesResponse>> {
        let mut procmgr = self.procmgr.clone();
        Box::pin(async move {
            Ok(procmgr.watch_instances(WatchInstancesRequest::default()).await?.into_inner().boxed())
        })
    }

    fn read_log(&self, request: ReadLogRequest) -> Call<'_, Flow<ReadLogResponse>> {
        let mut procmgr = self.logs.clone();
        Box::pin(async move { Ok(procmgr.read_log(request).await?.into_inner().boxed()) })
    }

    fn instance(&self, id: String) -> Call<'_, InstanceStatus> {
        let mut procmgr = self.procmgr.clone();
        Box::pin(async move {
            let answer = procmgr.get_instance(GetInstanceRequest { id }).await?.into_inner();
            answer.instance.ok_or_else(|| Status::not_found("nothing is said of it"))
        })
    }
}

/// Whether the answer is a judgement on what was asked; anything else may be different at the next try.
pub(crate) fn is_refusal(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::DataLoss => true,
        // ResourceExhausted: too busy for the moment; limits that stay are FailedPrecondition.
        // Unauthenticated: the other side was started with another secret and is about to be replaced, or this one is.
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::Unauthenticated => false,
    }
}
