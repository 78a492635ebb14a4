//! The app of the stories about gRPC: health, whose calls are answered with one message, with a stream of them or with a status,
//! and reflection, where both sides speak in turn. It speaks HTTP/2 on `$PORT`, and nothing else.

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddr},
};

use tonic::transport::Server;
use tonic_health::ServingStatus;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::var("PORT")?.parse()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(nexushub_proto::DESCRIPTORS)
        .build_v1()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Server::builder().add_service(health).add_service(reflection).serve(address).await?;
    Ok(())
}
