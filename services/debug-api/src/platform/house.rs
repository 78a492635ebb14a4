//! What the facade asks of the other daemons, besides what `peers.rs` has. A trait, so that the calls can be tried without them.

use nexushub_chassis::client::{Clients, GrpcChannel};
use nexushub_proto::{
    procmgr::{
        InstanceStatus, ListInstancesRequest, PauseInstanceRequest, RestartInstanceRequest,
        ResumeInstanceRequest, procmgr_service_client::ProcmgrServiceClient,
    },
    provider::{
        self, Application, ConfirmRemovalsRequest, ListInstancesResponse, ListReleasesRequest,
        RevertReleaseRequest, SetReleaseRequest, provider_service_client::ProviderServiceClient,
    },
    proxy::{GetMetricsRequest, proxy_service_client::ProxyServiceClient},
};

use crate::peers::Call;

/// The largest answer that is taken: ten thousand instances with what is said of them.
const MESSAGE_BYTES: usize = 64 << 20;

/// What is asked.
pub(crate) trait House: Send + Sync + 'static {
    /// Everything that should run, and what can't.
    fn wanted(&self) -> Call<'_, ListInstancesResponse>;
    /// Everything that runs, with what it uses.
    fn instances(&self) -> Call<'_, Vec<InstanceStatus>>;
    /// What the proxy counts, as text.
    fn metrics(&self) -> Call<'_, String>;
    /// The packages of an application; of all, if it is empty.
    fn releases(&self, app_id: String) -> Call<'_, Vec<Application>>;
    fn set_release(&self, app_id: String, release: provider::Release) -> Call<'_, ()>;
    fn revert_release(&self, app_id: String, path: String, reason: String) -> Call<'_, ()>;
    fn confirm(&self, ids: Vec<String>) -> Call<'_, ()>;
    fn restart(&self, id: String) -> Call<'_, ()>;
    /// Has its requests wait, or be refused with these words.
    fn pause(&self, id: String, message: String, closed: bool) -> Call<'_, ()>;
    fn resume(&self, id: String) -> Call<'_, ()>;
}

/// The real ones.
pub(crate) struct Daemons {
    provider: ProviderServiceClient<GrpcChannel>,
    procmgr: ProcmgrServiceClient<GrpcChannel>,
    proxy: ProxyServiceClient<GrpcChannel>,
}

impl Daemons {
    pub(crate) fn new(clients: &Clients) -> Self {
        let provider = ProviderServiceClient::new(clients.channel("provider"));
        let procmgr = ProcmgrServiceClient::new(clients.channel("procmgr"));
        Self {
            provider: provider.max_decoding_message_size(MESSAGE_BYTES),
            procmgr: procmgr.max_decoding_message_size(MESSAGE_BYTES),
            proxy: ProxyServiceClient::new(clients.channel("proxy")).max_decoding_message_size(MESSAGE_BYTES),
        }
    }
}

/// A call of a client that is cheap to clone, and what of its answer matters.
macro_rules! ask {
    ($client:expr, $call:ident($request:expr) => $answer:pat => $result:expr) => {{
        let mut client = $client.clone();
        Box::pin(async move {
            let $answer = client.$call($request).await?.into_inner();
            Ok($result)
        })
    }};
}

impl House for Daemons {
    fn wanted(&self) -> Call<'_, ListInstancesResponse> {
        ask!(self.provider, list_instances(provider::ListInstancesRequest {}) => answer => answer)
    }

    fn instances(&self) -> Call<'_, Vec<InstanceStatus>> {
        ask!(self.procmgr, list_instances(ListInstancesRequest {}) => answer => answer.instances)
    }

    fn metrics(&self) -> Call<'_, String> {
        ask!(self.proxy, get_metrics(GetMetricsRequest {}) => answer => answer.text)
    }

    fn releases(&self, app_id: String) -> Call<'_, Vec<Application>> {
        ask!(self.provider, list_releases(ListReleasesRequest { app_id }) => answer => answer.applications)
    }

    fn set_release(&self, app_id: String, release: provider::Release) -> Call<'_, ()> {
        let release = Some(release);
        ask!(self.provider, set_release(SetReleaseRequest { app_id, release }) => _ => ())
    }

    fn revert_release(&self, app_id: String, path: String, reason: String) -> Call<'_, ()> {
        ask!(self.provider, revert_release(RevertReleaseRequest { app_id, path, reason }) => _ => ())
    }

    fn confirm(&self, ids: Vec<String>) -> Call<'_, ()> {
        ask!(self.provider, confirm_removals(ConfirmRemovalsRequest { ids }) => _ => ())
    }

    fn restart(&self, id: String) -> Call<'_, ()> {
        ask!(self.procmgr, restart_instance(RestartInstanceRequest { id }) => _ => ())
    }

    fn pause(&self, id: String, message: String, closed: bool) -> Call<'_, ()> {
        ask!(self.procmgr, pause_instance(PauseInstanceRequest { id, message, closed }) => _ => ())
    }

    fn resume(&self, id: String) -> Call<'_, ()> {
        ask!(self.procmgr, resume_instance(ResumeInstanceRequest { id }) => _ => ())
    }
}
