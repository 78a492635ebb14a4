//! What the login app is told, and the ids that are the same everywhere.

pub(crate) use nexushub_applib::wellknown::{ADMIN, LOGIN};

/// The proxy, as it calls.
pub(crate) const PROXY: &str = "@proxy";
/// Seconds that an access token is good for.
pub(crate) const ACCESS: i64 = 600;

/// Whether this may be the id of an app instance.
pub(crate) fn is_instance(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
