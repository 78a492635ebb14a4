//! Ours: the whole platform out of release programs, its app without a box.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use nexushub_e2e::{App, Options, Platform, Process, Signal, soon};
use nexushub_proto::procmgr::endpoint::Kind;
use serde_json::Value;

use super::Backend;
use crate::proxy::backend;

/// What is not as shipped: no log of requests, and bounds that a bench would meet.
const CONFIG: &str = "
[platform]
log_level = \"warn\"
[supervisor]
watchdog_ms = 3600000
[proxy]
access_log = false
max_connections = 20000
idle_ms = 600000
workers = 1
backend_idle_connections = 1024
";

/// Between two looks at the kept table.
const PAUSE: Duration = Duration::from_millis(10);

/// The platform; when it ends, procmgr may speak again before.
pub(super) struct Ours(pub(super) Platform);

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(process) = self.0.board.now().daemon("procmgr").pid.and_then(Process::open) {
            process.signal(Signal::CONT);
        }
    }
}

/// The platform, the process of its proxy, and its app.
pub(super) async fn start(routes: usize) -> (Ours, u32, Backend) {
    let platform = Platform::start_with(&Options::of(CONFIG));
    let app = App::named("bench").env(backend::ROLE, "1");
    let program = platform.home.path().join("releases/bench/bin/app");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy("/proc/self/exe", &program).unwrap();
    platform.put(platform.instance(&app)).await.unwrap();
    let status = platform.running("bench").await;
    let endpoint = status.endpoint.and_then(|endpoint| endpoint.kind);
    let Some(Kind::TcpPort(port)) = endpoint else { panic!("no port: {endpoint:?}") };
    if routes > 0 {
        spread(&platform, routes).await;
    }
    let pid = platform.daemon("proxy").await.pid;
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    (Ours(platform), pid, Backend { address, pid: status.pid })
}

/// The kept table, once the app is routed in it.
async fn kept(file: &Path) -> Value {
    let mut again = tokio::time::interval(PAUSE);
    loop {
        let table: Value = serde_json::from_slice(&fs::read(file).unwrap_or_default()).unwrap_or_default();
        if table["instances"][0]["routed"] == true {
            return table;
        }
        again.tick().await;
    }
}

/// Gives the app so many further names. A machine has no room for as many apps, so they are written into the table that the
/// proxy keeps for a time without procmgr, procmgr falls silent, and the proxy is started again.
async fn spread(platform: &Platform, routes: usize) {
    let file = platform.state().join("proxy/routes.json");
    let mut table = soon("a kept route", kept(&file)).await;
    let instances = table["instances"].as_array_mut().unwrap();
    let one = instances[0].clone();
    for number in 0..routes {
        let mut another = one.clone();
        another["id"] = format!("r{number}").into();
        another["host"] = format!("r{number}").into();
        instances.push(another);
    }
    platform.daemon("procmgr").await.signal(Signal::STOP);
    fs::write(&file, serde_json::to_vec(&table).unwrap()).unwrap();
    platform.kill("proxy").await;
}
