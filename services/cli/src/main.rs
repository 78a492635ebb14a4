//! `nexushub`: the command people type to run and use a platform. A client like any other: it speaks gRPC to the daemons with
//! the operators' tokens, and HTTPS to the proxy; only `up` starts anything.

mod args;
mod board;
mod certs;
mod check;
mod command;
mod doctor;
mod down;
mod failure;
mod https;
mod instances;
mod keeper;
mod logs;
mod man;
mod metrics;
mod out;
mod package;
mod pause;
mod place;
mod process;
mod push;
mod restart;
mod rpc;
mod status;
mod systemd;
mod table;
mod up;
mod upload;

fn main() -> std::process::ExitCode {
    command::main()
}
