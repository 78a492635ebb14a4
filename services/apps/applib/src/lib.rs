//! What an app of NexusHub needs, and nothing that it doesn't: an app is an ordinary HTTP program, and this crate is the
//! afternoon that it would take to write the same again.
//!
//! # An app
//! ```no_run
//! use axum::{Router, routing::get};
//! use nexushub_applib::{Identity, Settings, serve};
//!
//! async fn greet(who: Option<Identity>) -> String {
//!     let name = who.and_then(|who| who.user).map_or("stranger".to_owned(), |user| user.name);
//!     format!("Hello, {name}\n")
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     serve(Settings::from_env()?, async |_settings| Ok(Router::new().route("/", get(greet))))
//! }
//! ```
//! Link it statically (`RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target x86_64-unknown-linux-gnu`), lay it
//! as `bin/app` into a folder, and `nexushub push FOLDER --name NAME`.
//!
//! # What the platform does for it
//! | it gets | from | here |
//! |---|---|---|
//! | where to listen, and its own name | `PORT`, `HOST` | [`Settings`], [`serve`] |
//! | SIGTERM, then five seconds | the platform, when another version takes over | [`serve`] |
//! | to be asked `GET /api/status` | the health check | answered by [`serve`] |
//! | a folder that outlives it | `NEXUSHUB_DATA` (`/db` in a box) | [`db::Db`] (feature `sqlite`) |
//! | who asks | headers that only the platform can have written | [`Identity`] |
//! | a way to other apps | the internal entrance, with its own `INTERNAL_SECRET` | [`calls::Entrance`] (feature `calls`) |
//! | a way out, with `egress = "internet"` | its box | [`web::Web`] (feature `calls`) |
//!
//! What nobody can do for it: refuse what a caller may not. `/public/*` is for everybody; `/api/*` and, of an app with
//! `sign_in = true`, every other path is asked for by whom the platform let in; `/internal/*` by the apps that its rules name.
//! Pages ([`page`]) carry a content security policy, and their forms a token ([`csrf`]).

#[cfg(feature = "calls")]
pub mod calls;
pub mod csrf;
#[cfg(feature = "sqlite")]
pub mod db;
pub mod error;
pub mod identity;
pub mod outbox;
pub mod page;
mod serve;
pub mod text;
pub mod time;
#[cfg(feature = "calls")]
mod tls;
#[cfg(all(feature = "calls", feature = "sqlite"))]
pub mod trail;
#[cfg(feature = "calls")]
pub mod web;
pub mod wellknown;

pub use error::Refusal;
pub use identity::{Identity, User};
pub use serve::{Settings, guard, serve, serve_then, told_to_stop};
