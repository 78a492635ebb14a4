//! What the login app is told, and the ids that are the same everywhere.

/// The login app's own instance id.
pub(crate) const LOGIN: &str = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9";
/// The admin app's instance id.
pub(crate) const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";
/// The proxy, as it calls.
pub(crate) const PROXY: &str = "@proxy";
/// Seconds that an access token is good for.
pub(crate) const ACCESS: i64 = 600;

/// Whether this may be the id of an app instance.
pub(crate) fn is_instance(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
