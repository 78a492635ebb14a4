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
    let mut proxy = ProxyServiceClient::new(rpc::channel(place, "proxy")?);
    let answer = proxy.get_metrics(GetMetricsRequest {}).await;
    let answer = answer.map_err(|status| rpc::failed(place, "proxy", &status))?;
    out::say(answer.into_inner().text.trim_end())?;
    Ok(OK)
}
