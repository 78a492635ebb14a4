//! The admin app, itself an instance of the platform: people register their applications there, and provider follows it.
//!
//! ```text
//! follow.rs ── when, by course.rs (pure) ──▶ ask.rs ── the proxy's own entrance ──▶ admin app
//!     └──▶ list.rs, application.rs (pure): text ▶ entries ──▶ listing.rs (pure): what stays, what is held ──▶ the owner (desired.rs)
//! ```
//! Invariant: whatever the admin app does or says, what runs goes on. A list that isn't one changes nothing, a bad entry is left
//! out and told, and too many instances that are missing at once are kept until somebody confirms that they go.

pub mod application;
pub mod ask;
pub mod course;
pub mod follow;
pub mod list;
pub mod listing;
