//! Where the platform's own daemons ask for apps: a Unix socket in the run folder, plain HTTP/1.1 behind the same front. Who asks is
//! known by the token that it shows, which counts only from its user's processes; what it may ask for, `decide.rs` says. Daemons ask
//! again when they are not answered, so a drain waits for none of them for long: they hold calls open for as long as they may.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    door::{Door, Outer, Place},
    front::Front,
    link::Link,
};

/// Connections at once: a few for each daemon.
const CONNECTIONS: usize = 64;
/// Pause after an accept that failed for want of descriptors or memory: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What is asked when a drain begins may be answered for so long.
const DRAIN: Duration = Duration::from_millis(500);
/// What stands for a network address where there is none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Accepts until the drain.
pub(crate) async fn serve(front: Arc<Front>, listener: UnixListener, drain: CancellationToken) {
    let door = Door::outside(Outer::of(CONNECTIONS), Arc::clone(&front.proxy.counters), drain);
    while let Some(accepted) = door.drain.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(place) = door.admit() {
            let seat = Arc::clone(&place.seat);
            let connection = Box::pin(converse(Arc::clone(&front), stream, place));
            front.proxy.tasks.spawn(seat.hold(connection));
        }
    }
}

async fn converse(front: Arc<Front>, stream: UnixStream, place: Place) {
    let Ok(peer) = stream.peer_cred() else { return };
    let link = Link::new(NOWHERE, None, false, place).of_daemon(peer.uid()).trust(false);
    tokio::select! {
        ended = front.speak_h1(stream, &link) => {
            if let Err(error) = ended {
                tracing::debug!(uid = peer.uid(), error, "connection ended");
            }
        }
        () = drained(&link.door().drain) => {}
    }
}

/// Waits for a drain, and a little longer.
pub(crate) async fn drained(drain: &CancellationToken) {
    drain.cancelled().await;
    sleep(DRAIN).await;
}
