//! `nexushub-sandbox --release DIR --data DIR ... -- /app/bin/app [ARG...]`: started by a shim as the first process of a box;
//! or `nexushub-sandbox --probe [--uid BASE]`: started plainly, to learn what this machine enforces; or `--map PROCESS`, `--measure`,
//! `--reclaim` or `--remove FOLDER...`: what an ordinary user does by the ids that it may give away.

use std::{env, process::ExitCode};

use nexushub_sandbox::{data, init, order, order::Order, probe, report::Report, subordinate};

fn main() -> ExitCode {
    let report = Report::take();
    match order::parse(env::args_os().skip(1)) {
        Ok(Order::Probe { uid, slot }) => probe::run(uid, slot),
        Ok(Order::Map(process)) => match subordinate::map(process) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => report.failed(&reason),
        },
        Ok(Order::Data(task, folders)) => data::run(task, &folders, report),
        Ok(Order::Run(order)) => init::run(&order, report),
        Err(reason) => report.failed(&reason),
    }
}
