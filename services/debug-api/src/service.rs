//! The gRPC side, for operators of the machine: a thin adapter.

use std::sync::Arc;

use nexushub_proto::debugapi::{
    Application, ListApplicationsRequest, ListApplicationsResponse, debug_api_service_server::DebugApiService,
};
use tonic::{Request, Response, Status};

use crate::{applications::Hub, record::Release};

/// `nexushub.debugapi.v1.DebugApiService`.
pub(crate) struct Service(pub(crate) Arc<Hub>);

#[tonic::async_trait]
impl DebugApiService for Service {
    async fn list_applications(
        &self,
        _: Request<ListApplicationsRequest>,
    ) -> Result<Response<ListApplicationsResponse>, Status> {
        let application = |app: &Arc<crate::applications::App>| {
            let (record, standing) = (app.record(), self.0.standing(app));
            let release = record.release.filter(|_| record.promotion.is_none());
            let path = |release: &Release| self.0.folders.release(&record.id, &release.name);
            Application {
                release: release.as_ref().map(|one| path(one).display().to_string()).unwrap_or_default(),
                version: release.and_then(|release| release.manifest.version).unwrap_or_default(),
                id: record.id,
                app_id: record.description.app_id.to_string(),
                display_name: record.description.display_name,
                host_name: record.description.host_name.to_string(),
                status: standing.status.as_str().to_owned(),
                created_unix_ms: record.created_unix_ms,
            }
        };
        let applications = self.0.list().iter().map(application).collect();
        Ok(Response::new(ListApplicationsResponse { applications }))
    }
}
