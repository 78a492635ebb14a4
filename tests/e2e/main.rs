//! The stories, told with real processes: one module each, one promise a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod adoption;
mod apps;
mod bad_config;
mod boot;
mod boxes;
mod command_line;
mod credentials;
mod egress;
mod entrance;
mod hangs;
mod hostile;
mod journal;
mod kills;
mod logs;
mod neighbours;
mod overlap;
mod packages;
mod push;
mod reflection;
mod roll;
mod routing;
mod secrets;
mod shutdown;
mod storm;
mod torn;
