//! Telling the parent and the health service how it stands: ready, draining, alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use nexushub_launch::notify::Notifier;
use nix::time::{ClockId, clock_gettime};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

/// Says how the daemon stands; clones speak for the same daemon.
#[derive(Clone)]
pub struct Ready {
    notifier: Option<Arc<Notifier>>,
    health: HealthReporter,
    services: Arc<std::sync::Mutex<Vec<&'static str>>>,
    started: Instant,
    /// Whether READY was said and STOPPING was not.
    said: Arc<AtomicBool>,
}

impl Ready {
    pub(crate) fn new(notifier: Option<Arc<Notifier>>, health: HealthReporter) -> Self {
        Self { notifier, health, services: Arc::default(), started: Instant::now(), said: Arc::default() }
    }

    /// The daemon has bound its sockets and loaded its state: health says SERVING and the parent is told. Once a start.
    pub fn ready(&self, status: &str) {
        self.set_health(ServingStatus::Serving);
        self.said.store(true, Ordering::Relaxed);
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(elapsed_ms, status, "ready");
    }

    /// A line for people about what the daemon is doing; shown by `nexushub status`.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", one_line(status)));
    }

    pub(crate) fn stopping(&self) {
        self.set_health(ServingStatus::NotServing);
        self.said.store(false, Ordering::Relaxed);
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// The notifier itself, for descriptors that shall outlive this generation.
    #[must_use]
    pub fn notifier(&self) -> Option<&Notifier> {
        self.notifier.as_deref()
    }

    /// Adds a service whose health goes with the daemon's.
    pub(crate) fn covers(&self, service: &'static str) {
        self.services.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(service);
    }

    fn set_health(&self, status: ServingStatus) {
        let services = self.services.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let health = self.health.clone();
        tokio::spawn(async move {
            for service in services.into_iter().chain([""]) {
                health.set_service_status(service, status).await;
            }
        });
    }

    fn tell(&self, message: &str) {
        let Some(notifier) = &self.notifier else { return };
        if let Err(error) = notifier.send(message) {
            warn!(%error, "could not notify the parent");
        }
    }
}

/// Gives the parent a sign of life every half of its patience, at multiples of that time, so that all daemons of a machine
/// wake it together. Runs on the daemon's own runtime: a runtime that hangs gives none. Says READY again each time: a parent
/// whose queue was full the first time learns it now.
pub(crate) async fn watchdog(ready: Ready, patience: Duration) {
    let interval = patience / 2;
    loop {
        tokio::time::sleep(until_next(uptime(), interval)).await;
        let message = if ready.said.load(Ordering::Relaxed) { "READY=1\nWATCHDOG=1" } else { "WATCHDOG=1" };
        ready.tell(message);
    }
}

/// A newline in a value would begin a further assignment.
fn one_line(status: &str) -> String {
    status.replace('\n', " ")
}

fn until_next(now: Duration, interval: Duration) -> Duration {
    let interval = interval.max(Duration::from_millis(1));
    let into = now.as_nanos() % interval.as_nanos();
    interval - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
}

/// `CLOCK_MONOTONIC`, which is the same for every process of the machine.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or_else(
        |_| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO),
        Duration::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_wakes_at_the_same_instants() {
        let interval = Duration::from_secs(2);
        for (now, wait) in [(0, 2000), (1, 1999), (1999, 1), (2000, 2000), (4500, 1500)] {
            assert_eq!(
                until_next(Duration::from_millis(now), interval),
                Duration::from_millis(wait),
                "at {now} ms"
            );
        }
    }
}
