//! What of the platform has a name before anything is configured: the two apps that belong to it, and its own caller names.

// Who may open the admin app is an administrator.
pub(crate) use nexushub_chassis::names::{ADMIN_INSTANCE as ADMIN, LOGIN_INSTANCE as LOGIN};

/// What an app is told who is asked by the proxy itself. No instance has an id like this.
pub(crate) const PROXY: &str = "@proxy";
/// Where in the platform internal calls are addressed to, relative to the base domain; no app's name.
pub(crate) const INTERNAL: &str = "internal";
/// The daemon that asks the admin app which applications there are.
pub(crate) const PROVIDER: &str = "@provider";
