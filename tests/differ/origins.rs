//! The origins, as Debian packs them: apps of a platform, each a script that starts one and passes on to what stands behind it.

use std::fs;

use nexushub_e2e::{App, Platform, workshop};
use nexushub_proto::procmgr::endpoint::Kind;

/// Whom the same bytes must mean the same to, and what starts them.
pub(crate) const ALL: [(&str, &str); 4] = [
    ("nginx", include_str!("origins/nginx")),
    ("haproxy", include_str!("origins/haproxy")),
    ("caddy", include_str!("origins/caddy")),
    ("nghttpx", include_str!("origins/nghttpx")),
];

/// What hands on bytes as they are.
pub(crate) const RELAY: &str = include_str!("origins/relay");

/// Runs one in front of a port; the port that it listens on itself.
pub(crate) async fn run(platform: &Platform, name: &str, script: &str, behind: u16) -> u16 {
    let program = platform.home.path().join("releases").join(name).join("bin/app");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    workshop::put_program(&program, script.as_bytes());
    let app = App::named(name).env("BEHIND", &behind.to_string());
    platform.put(platform.instance(&app)).await.unwrap();
    let endpoint = platform.running(name).await.endpoint.and_then(|endpoint| endpoint.kind);
    let Some(Kind::TcpPort(port)) = endpoint else { panic!("{name} has no port: {endpoint:?}") };
    u16::try_from(port).unwrap()
}
