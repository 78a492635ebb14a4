//! `nexushub`: the command people type. A client like any other, by gRPC and HTTPS; only `up` starts anything.

mod apply;
mod apps;
mod args;
mod audit;
mod board;
mod bootstrap;
mod certs;
mod check;
mod command;
mod completion;
mod dev;
mod doctor;
mod down;
mod events;
mod failure;
mod far;
mod help;
mod https;
mod hub;
mod init;
mod instances;
mod keeper;
mod life;
mod login;
mod logs;
mod man;
mod metrics;
mod out;
mod package;
mod pause;
mod place;
mod plan;
mod process;
mod progress;
mod push;
mod pushed;
mod releases;
mod remove;
mod restart;
mod rpc;
mod session;
mod settings;
mod shapes;
mod status;
mod systemd;
mod table;
mod top;
mod up;
mod upload;
mod wait;
mod watch;

/// Does what the command line says.
#[must_use]
pub fn main() -> std::process::ExitCode {
    command::main()
}
