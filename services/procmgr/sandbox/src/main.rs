//! `nexushub-sandbox --release DIR --data DIR ... -- /app/bin/app [ARG...]`: started by a shim as the first process of a box;
//! or `nexushub-sandbox --probe [--uid BASE]`: started plainly, to learn what this machine enforces.

use std::{env, process::ExitCode};

use nexushub_sandbox::{init, order, order::Order, probe, report::Report};

fn main() -> ExitCode {
    let report = Report::take();
    match order::parse(env::args_os().skip(1)) {
        Ok(Order::Probe { uid }) => probe::run(uid),
        Ok(Order::Run(order)) => init::run(&order, report),
        Err(reason) => report.failed(&reason),
    }
}
