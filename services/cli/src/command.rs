//! From the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Cli, Command, Global},
    audit, bootstrap, certs, check, doctor, down,
    failure::{Failure, OK},
    logs, man, metrics, out, pause,
    place::Place,
    plan, push, releases, restart, status, up,
};

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            let _ = answer.print(); // where it can't be written, nobody reads it
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(crate::failure::USAGE));
        }
    };
    let outcome = run(cli).unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            out::tell(&format!("nexushub: {failure}"));
        }
        failure.code
    });
    ExitCode::from(outcome)
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(&Place::to_start(global)?, &args),
        Command::Keep(args) => up::keep(&Place::to_start(global)?, args.listen),
        Command::Certs(args) => certs::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&place(global)?, &args),
        Command::Man(args) => man::run(&args.dir),
        Command::Check => check::run(&place(global)?),
        Command::Down(args) => down::run(&place(global)?, &args),
        Command::Secret(args) => {
            out::say(&place(global)?.token(&args.daemon)?)?;
            Ok(OK)
        }
        Command::Status(args) => wait(status::run(&place(global)?, &args)),
        Command::Doctor(args) => wait(doctor::run(&place(global)?, &args)),
        Command::Logs(args) => wait(logs::run(&place(global)?, &args)),
        Command::Audit(args) => audit::run(&place(global)?, &args),
        Command::Metrics => wait(metrics::run(&place(global)?)),
        Command::Pause(args) => wait(pause::pause(&place(global)?, &args)),
        Command::Resume(args) => wait(pause::resume(&place(global)?, &args)),
        Command::Restart(args) => wait(restart::run(&place(global)?, &args)),
        Command::Plan(args) => wait(plan::plan(&place(global)?, &args)),
        Command::Apply(args) => wait(plan::apply(&place(global)?, &args)),
        Command::Push(args) => wait(push::run(&place(global)?, &args)),
        Command::Releases(args) => wait(releases::releases(&place(global)?, &args)),
        Command::Rollback(args) => wait(releases::rollback(&place(global)?, &args)),
    }
}

fn place(global: &Global) -> Result<Place, Failure> {
    Place::find(global)
}

/// Runs a command that talks to daemons.
fn wait(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    up::runtime()?.block_on(command)
}
