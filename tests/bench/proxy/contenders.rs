//! The contenders: ours as the whole platform, and three others, each with the same certificate, the same way to the same backend
//! and the same things said about the client; none logs requests. Ours is started first, because its app is the backend.

mod others;
mod ours;

use std::{any::Any, net::SocketAddr};

use tokio::runtime::Runtime;

use super::cost;

/// The name of the app, and of everybody's certificate.
pub(crate) const HOST: &str = "bench.yesterday.localhost";
/// Names in the table of columns, in the order of [`Field::contenders`].
pub(crate) const NAMES: [&str; 4] = ["ours", "nginx", "HAProxy", "Caddy"];

/// Who is measured together.
pub(crate) struct Field {
    pub(crate) contenders: Vec<Contender>,
    pub(crate) backend: Backend,
}

/// The app behind all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backend {
    /// Where it listens, without TLS.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
}

/// One proxy that serves.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Its processes: those whose time and memory count.
    pub(crate) pids: Vec<u32>,
    /// It ends with this.
    _held: Box<dyn Any>,
}

impl Field {
    /// Starts all of them, with one route or with so many further ones that lead to the same backend.
    pub(crate) fn start(runtime: &Runtime, routes: usize) -> Self {
        let (platform, pid, backend) = runtime.block_on(ours::start(routes));
        cost::bind_process(pid, cost::MEASURED);
        let ours = Contender {
            name: NAMES[0],
            address: platform.0.address,
            pids: vec![pid],
            _held: Box::new(platform),
        };
        let others = others::ALL.into_iter().zip(&NAMES[1..]).map(|(kind, name)| {
            let (daemon, address) = others::start(kind, backend.address, routes);
            Contender { name, address, pids: cost::family(daemon.pid()), _held: Box::new(daemon) }
        });
        Self { contenders: std::iter::once(ours).chain(others).collect(), backend }
    }
}

/// The name of one of many routes.
pub(crate) fn route(number: usize) -> String {
    format!("r{number}.yesterday.localhost")
}
