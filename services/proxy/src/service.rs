//! What operators may ask the proxy: its routes and its numbers. Read-only, so there is no error to map.

use std::sync::Arc;

use nexushub_proto::proxy::{
    GetCountersRequest, GetCountersResponse, GetMetricsRequest, GetMetricsResponse, ListRoutesRequest,
    ListRoutesResponse, Route as WireRoute, proxy_service_server::ProxyService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    counters::Counters,
    metrics,
    table::{Endpoint, Route, Source, Table},
};

/// The adapter.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) base_domain: String,
}

#[tonic::async_trait]
impl ProxyService for Service {
    async fn list_routes(
        &self,
        _: Request<ListRoutesRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let table = Arc::clone(&self.table.borrow());
        let routes = table.routes().into_iter().map(|route| wire(route, &self.base_domain)).collect();
        let source = match table.source {
            Source::Nothing => "nothing",
            Source::Kept => "kept",
            Source::Procmgr => "procmgr",
        };
        Ok(Response::new(ListRoutesResponse { routes, revision: table.revision, source: source.into() }))
    }

    async fn get_metrics(
        &self,
        _: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let table = Arc::clone(&self.table.borrow());
        Ok(Response::new(GetMetricsResponse { text: metrics::text(&table, &self.counters) }))
    }

    async fn get_counters(
        &self,
        _: Request<GetCountersRequest>,
    ) -> Result<Response<GetCountersResponse>, Status> {
        let counters = &self.counters;
        Ok(Response::new(GetCountersResponse {
            connections_accepted: counters.connections_accepted.get(),
            connections_open: counters.connections_open.get(),
            connections_refused: counters.connections_refused.get(),
            tls_failures: counters.tls_failures.get(),
            requests: counters.requests.get(),
            connections_refused_address: counters.connections_refused_address.get(),
            redirects: counters.redirects.get(),
            requests_limited: counters.requests_limited.get(),
            requests_malformed: counters.requests_malformed.get(),
            requests_in_flight: counters.requests_in_flight.get(),
            responses_502: counters.responses_502.get(),
            responses_503: counters.responses_503.get(),
            responses_404: counters.responses_404.get(),
            upgrades_open: counters.upgrades_open.get(),
            inward_listeners_open: counters.inward_listeners_open.get(),
            inward_connections_open: counters.inward_connections_open.get(),
            inward_refused: counters.inward_refused.get(),
            ejections: counters.ejections.get(),
            access_refused: counters.access_refused.get(),
            connections_displaced: counters.connections_displaced.get(),
        }))
    }
}

fn wire(route: &Route, base_domain: &str) -> WireRoute {
    let entry = &route.entry;
    let endpoint = match &entry.endpoint {
        Some(Endpoint::Tcp(port)) => format!("127.0.0.1:{port}"),
        Some(Endpoint::Shim(path)) => path.display().to_string(),
        None => String::new(),
    };
    let reason = match (entry.routed, entry.reason.is_empty()) {
        (true, _) => String::new(),
        (false, true) => entry.state.word().to_owned(),
        (false, false) => format!("{}: {}", entry.state.word(), entry.reason),
    };
    WireRoute {
        host_name: format!("{}.{base_domain}", entry.host),
        instance_id: entry.id.clone(),
        routed: entry.routed,
        endpoint,
        reason,
        hosts: entry.rules.hosts.clone(),
        path_prefix: entry.rules.prefix.clone(),
        balance: entry.rules.group.clone(),
        left_out: !entry.rules.group.is_empty() && route.standing.is_out(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        pool::Limits,
        table::{
            Change, State,
            tests::{idle, running},
        },
    };

    #[tokio::test]
    async fn routes_are_listed_by_host_with_the_reason_of_what_is_not_routed() {
        let entries =
            vec![running("1", "zoo", 10_000), idle("2", "ant", State::Failed, "exited with code 3")];
        let table = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
        let (_sender, table) = watch::channel(Arc::new(table));
        let service = Service { table, counters: Arc::default(), base_domain: "yesterday.localhost".into() };
        let answer = service.list_routes(Request::new(ListRoutesRequest {})).await.unwrap().into_inner();
        assert_eq!((answer.source.as_str(), answer.revision), ("procmgr", 1));
        let told: Vec<_> =
            answer.routes.iter().map(|r| (r.host_name.as_str(), r.routed, r.reason.as_str())).collect();
        assert_eq!(
            told,
            [
                ("ant.yesterday.localhost", false, "failed: exited with code 3"),
                ("zoo.yesterday.localhost", true, "")
            ]
        );
        assert_eq!(answer.routes[1].endpoint, "127.0.0.1:10000");
    }

    #[tokio::test]
    async fn counters_are_told_as_counted() {
        let (_sender, table) = watch::channel(Arc::new(Table::empty(Limits::default())));
        let counters = Arc::new(Counters::default());
        counters.requests.up();
        counters.answered(502);
        let service = Service { table, counters, base_domain: String::new() };
        let answer = service.get_counters(Request::new(GetCountersRequest {})).await.unwrap().into_inner();
        assert_eq!((answer.requests, answer.responses_502, answer.responses_503), (1, 1, 0));
    }
}
