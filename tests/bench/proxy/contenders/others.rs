//! nginx, HAProxy and Caddy, as Debian packs them: one worker each, and whatever else they were given, the others have too.

use std::{
    fmt::Write,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nexushub_e2e::{HANG, Process, Signal, home::free_address, workshop};
use tempfile::TempDir;

use super::{HOST, route};
use crate::proxy::cost;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    Haproxy,
    Caddy,
}

pub(super) const ALL: [Kind; 3] = [Kind::Nginx, Kind::Haproxy, Kind::Caddy];

impl Kind {
    /// Of how many processes it is made. nginx listens before its worker is there, whose time is what counts.
    fn processes(self) -> usize {
        if self == Self::Nginx { 2 } else { 1 }
    }
}

/// Between two looks whether it listens.
const PAUSE: Duration = Duration::from_millis(10);

/// A daemon that runs, and its folder.
pub(super) struct Daemon {
    child: Child,
    _folder: TempDir,
}

impl Daemon {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(process) = Process::open(self.child.id()) {
            process.signal(Signal::TERM);
            if !process.ended_within(HANG) {
                process.signal(Signal::KILL);
            }
        }
        self.child.wait().ok(); // it has ended either way
    }
}

/// Starts it on its core and waits until it listens and is all there.
pub(super) fn start(kind: Kind, backend: SocketAddr, routes: usize) -> (Daemon, SocketAddr) {
    let folder = tempfile::Builder::new().prefix("nhbench").tempdir_in("/tmp").unwrap();
    let address = free_address();
    let site = Site { folder: folder.path(), certs: workshop::certificates(), address, backend, routes };
    let mut command = match kind {
        Kind::Nginx => nginx(&site),
        Kind::Haproxy => haproxy(&site),
        Kind::Caddy => caddy(&site),
    };
    let complaints = folder.path().join("complaints");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&complaints).unwrap());
    cost::bind(cost::MEASURED);
    let child = command.spawn();
    cost::bind(cost::REST);
    let mut child = child.unwrap_or_else(|error| panic!("{kind:?} is not installed: {error}"));
    while TcpStream::connect(address).is_err() || cost::family(child.id()).len() < kind.processes() {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{kind:?} ended with {status}: {}", fs::read_to_string(complaints).unwrap());
        }
        thread::park_timeout(PAUSE);
    }
    (Daemon { child, _folder: folder }, address)
}

struct Site<'a> {
    folder: &'a Path,
    certs: &'a Path,
    address: SocketAddr,
    backend: SocketAddr,
    routes: usize,
}

impl Site<'_> {
    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A line for the app's own name and for each further route.
    fn names(&self, line: impl Fn(&str) -> String) -> String {
        let routes = (0..self.routes).map(route);
        std::iter::once(HOST.to_owned()).chain(routes).fold(String::new(), |mut text, name| {
            writeln!(text, "{}", line(&name)).unwrap();
            text
        })
    }
}

fn nginx(site: &Site) -> Command {
    let Site { folder, certs, address, backend, .. } = site;
    let (folder, certs) = (folder.display(), certs.display());
    let apps = site.names(|name| {
        format!(
            "  upstream {name} {{ server {backend}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{ listen {address}; server_name {name}; location / {{ proxy_pass http://{name}; }} }}"
        )
    });
    let config = format!(
        "user root;
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid {folder}/pid;
error_log /dev/null crit;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  server_tokens off;
  server_names_hash_max_size 65536;
  server_names_hash_bucket_size 128;
  map $http_upgrade $connection_upgrade {{ default upgrade; \"\" \"\"; }}
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Request-Id $request_id;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  server {{
    listen {address} ssl http2 default_server backlog=4096;
    ssl_certificate {certs}/server.crt;
    ssl_certificate_key {certs}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_ecdh_curve X25519;
    ssl_session_tickets on;
    return 404;
  }}
{apps}}}
"
    );
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(site.folder).arg("-c").arg(site.write("nginx.conf", &config));
    command
}

fn haproxy(site: &Site) -> Command {
    let Site { address, backend, .. } = site;
    let part = |name: &str| fs::read_to_string(site.certs.join(name)).unwrap();
    let pem = site.write("server.pem", &(part("server.crt") + &part("server.key")));
    let names = site.write("names.map", &site.names(|name| format!("{name} {name}")));
    let apps = site.names(|name| format!("backend {name}\n  server app {backend}"));
    let (pem, names) = (pem.display(), names.display());
    let config = format!(
        "global
  nbthread 1
  maxconn 9500
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-curves X25519
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  timeout tunnel 600s
  option forwardfor
  http-reuse always
frontend https
  bind {address} ssl crt {pem} alpn h2,http/1.1 backlog 4096
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Request-Id %[uuid()]
  use_backend %[req.hdr(host),field(1,:),lower,map({names},none)]
{apps}"
    );
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(site.write("haproxy.cfg", &config));
    command
}

fn caddy(site: &Site) -> Command {
    let Site { certs, address, backend, .. } = site;
    let (certs, port) = (certs.display(), address.port());
    let names = site.names(|name| format!("    host {name}"));
    let config = format!(
        "{{
  admin off
  auto_https off
  grace_period 1s
  servers {{
    protocols h1 h2
    timeouts {{
      idle 10m
    }}
  }}
}}
:{port} {{
  bind 127.0.0.1
  tls {certs}/server.crt {certs}/server.key {{
    protocols tls1.2 tls1.3
    curves x25519
  }}
  @known {{
{names}  }}
  reverse_proxy @known {backend} {{
    header_up X-Request-Id {{http.request.uuid}}
    transport http {{
      versions 1.1
      compression off
      keepalive 10m
      keepalive_idle_conns 1024
      keepalive_idle_conns_per_host 1024
    }}
  }}
}}
"
    );
    let mut command = Command::new("/usr/bin/caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(site.write("Caddyfile", &config));
    command.env("GOMAXPROCS", "1").env("HOME", site.folder).env("XDG_DATA_HOME", site.folder);
    command
}
