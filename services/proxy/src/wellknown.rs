//! What of the platform has a name before anything is configured: the two apps that belong to it, and its own caller names.

// Who may open the admin app is an administrator.
pub(crate) use nexushub_chassis::names::{ADMIN_INSTANCE as ADMIN, LOGIN_INSTANCE as LOGIN};

/// What an app is told who is asked by the proxy itself. No instance has an id like this.
pub(crate) const PROXY: &str = "@proxy";
/// What debug-api is told of a program on this machine that may ask without a token.
pub(crate) const LOOPBACK: &str = "@loopback";
/// Where in the platform internal calls are addressed to, relative to the base domain; no app's name.
pub(crate) const INTERNAL: &str = "internal";
/// The daemon that asks the admin app which applications there are.
pub(crate) const PROVIDER: &str = "@provider";
/// The daemon that hands over debug applications to the admin app.
pub(crate) const DEBUG_API: &str = "@debug-api";
