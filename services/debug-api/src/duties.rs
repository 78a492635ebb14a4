//! What the daemon does as long as it lives. Nothing of it has a reason to end before the drain: if a part does, or panics,
//! the daemon ends with a fault, its parent starts it anew, and start-up takes up what was under way.

use nexushub_chassis::{Fault, shutdown::Shutdown, vital::Vital};
use tokio::task::{JoinError, JoinHandle};

/// The two servers, which see the drain through, and what ends with it.
pub(crate) struct Duties {
    pub(crate) http: JoinHandle<()>,
    pub(crate) grpc: JoinHandle<Result<(), Fault>>,
    pub(crate) vital: Vital,
}

impl Duties {
    /// Until the drain is over, or something has ended that should not have.
    pub(crate) async fn done(mut self, shutdown: &Shutdown) -> Result<(), Fault> {
        let ended = tokio::select! {
            biased; // the drain ends them all, and that is no fault
            () = shutdown.draining() => None,
            fault = self.vital.ended() => Some(fault),
            http = &mut self.http => Some(early("http", http.map(Ok))),
            grpc = &mut self.grpc => Some(early("grpc", grpc)),
        };
        if let Some(fault) = ended {
            return Err(fault);
        }
        self.http.await.map_err(|error| broke("http", &error))?;
        self.grpc.await.map_err(|error| broke("grpc", &error))?
    }
}

fn early(name: &str, ended: Result<Result<(), Fault>, JoinError>) -> Fault {
    let for_no_reason = |()| Fault::new("server_ended", "a server ended early", name, "see the log above");
    ended.map_err(|error| broke(name, &error)).flatten().map_or_else(|fault| fault, for_no_reason)
}

fn broke(name: &str, error: &JoinError) -> Fault {
    Fault::new("server_ended", format!("a server broke: {error}"), name, "see the log above")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::pending;

    use super::*;

    fn duties(shutdown: &Shutdown) -> Duties {
        let (http, grpc) = (shutdown.clone(), shutdown.clone());
        let mut vital = Vital::default();
        vital.spawn("live feed", pending());
        Duties {
            http: tokio::spawn(async move { http.draining().await }),
            grpc: tokio::spawn(async move {
                grpc.draining().await;
                Ok(())
            }),
            vital,
        }
    }

    #[tokio::test]
    async fn a_part_that_panics_or_ends_early_ends_the_daemon() {
        let (_drain, shutdown) = Shutdown::by_hand();
        let panicking = || async { std::panic::resume_unwind(Box::new("broken")) };
        let mut feed = duties(&shutdown);
        feed.vital.spawn("expiry", async {});
        let http = Duties { http: tokio::spawn(panicking()), ..duties(&shutdown) };
        let grpc = Duties { grpc: tokio::spawn(async { Ok(()) }), ..duties(&shutdown) };
        for (duties, object) in [(feed, "expiry"), (http, "http"), (grpc, "grpc")] {
            assert_eq!(duties.done(&shutdown).await.unwrap_err().object, object);
        }
    }

    #[tokio::test]
    async fn the_drain_is_a_good_end() {
        let (drain, shutdown) = Shutdown::by_hand();
        let mut duties = duties(&shutdown);
        let expiry = shutdown.clone();
        duties.vital.spawn("expiry", async move { expiry.draining().await });
        drain.send_replace(true);
        assert_eq!(duties.done(&shutdown).await, Ok(()));
    }
}
