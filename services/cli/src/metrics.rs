//! `nexushub metrics`: what the proxy counts, for Prometheus and the like.

use nexushub_proto::proxy::{GetMetricsRequest, proxy_service_client::ProxyServiceClient};

use crate::{
    failure::{Failure, OK},
    out,
    place::Place,
    rpc,
};

/// `nexushub metrics`
pub(crate) async fn run(place: &Place) -> Result<u8, Failure> {
    out::say(text(place).await?.trim_end())?;
    Ok(OK)
}

/// What it counts.
pub(crate) async fn text(place: &Place) -> Result<String, Failure> {
    let mut proxy = ProxyServiceClient::new(rpc::channel(place, "proxy")?);
    let answer = proxy.get_metrics(GetMetricsRequest {}).await;
    answer.map(|answer| answer.into_inner().text).map_err(|status| rpc::failed(place, "proxy", &status))
}
