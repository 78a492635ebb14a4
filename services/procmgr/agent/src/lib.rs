//! What the host's `nexushub-krun` and the guest's `nexushub-agent` have in common: the configuration that goes in once,
//! and the lines that both say to each other afterwards. The agent itself is the program of this crate.
//!
//! ```text
//! krun ── configuration: a file of the guest's root that can be looked up once ──────────► agent
//! krun ◄─ control, vsock port 1024: hello, started, alive …, oom-kills N, code=N | signal=N | failed … ── agent
//! krun ── control: stop, bye ─────────────────────────────────────────────────────────────► agent
//! keeper ◄─ inward, vsock port 8443 ─────────────────── agent ─ 127.0.0.1:8443 ─ app's calls to the platform
//! proxy ─ app, vsock port 80 ────────────────────────────────────────── agent ─ 127.0.0.1:80 ─ app
//! ```
//! Nothing of an app's goes the way of libkrun's own arguments: they end up, unescaped, on the guest kernel's command line.

pub mod config;
pub mod forward;
pub mod word;

/// The guest's vsock port whose connections are passed on to the app's port.
pub const APP_PORT: u32 = 80;
/// The host's vsock port, and the guest's port on 127.0.0.1, that lead to the platform's internal entrance.
pub const INWARD_PORT: u16 = 8443;
/// The host's vsock port to which the agent connects.
pub const CONTROL_PORT: u32 = 1024;
/// The agent in the guest's first root; libkrun's kernel command line names it.
pub const INIT: &str = "init.krun";
/// The configuration in the guest's first root.
pub const CONFIG: &str = "config";
/// Empty folders of the guest's first root.
pub const MOUNT_POINTS: [&str; 2] = ["dev", "new"];
/// The virtio-fs tag of the release.
pub const RELEASE_TAG: &str = "app";
/// The virtio-fs tag of the app's data.
pub const DATA_TAG: &str = "db";
/// The virtio-fs tag of the host's `/usr`.
pub const BASE_TAG: &str = "usr";
/// User and group of the app in the guest, and of the VMM in its user namespace: libkrun serves files as no other.
pub const APP_ID: u32 = 1000;
