//! What of the platform has a name before anything is configured: the two apps that belong to it, and its own caller names.

/// The app that owns users' sessions, by its instance id.
pub(crate) const LOGIN: &str = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9";
/// The app that owns applications, users and rules. Who may open it is an administrator.
pub(crate) const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";
/// What an app is told who is asked by the proxy itself. No instance has an id like this.
pub(crate) const PROXY: &str = "@proxy";
/// Where in the platform internal calls are addressed to, relative to the base domain; no app's name.
pub(crate) const INTERNAL: &str = "internal";
/// The daemon that asks the admin app which applications there are.
pub(crate) const PROVIDER: &str = "@provider";
