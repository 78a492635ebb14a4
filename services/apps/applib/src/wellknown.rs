//! What is called the same on every platform.

/// The login app's instance id.
pub const LOGIN: &str = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9";
/// The admin app's.
pub const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";
/// Host names, relative to the base domain, that are the platform's own.
pub const RESERVED_HOSTS: [&str; 6] = ["login", "admin", "internal", "localhost", "debug", "platform"];
