//! From the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::{
    apps,
    args::{Cli, Command, Global},
    audit, bootstrap, certs, check, completion, dev, doctor, down, events,
    failure::{Failure, OK},
    init, life, logs, man, metrics, out, pause,
    place::Place,
    plan, push, releases, restart, settings, status, top, up, wait,
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
    out::look();
    let outcome = run(cli).unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            out::tell(&format!("nexushub: {failure}"));
        }
        failure.code
    });
    ExitCode::from(outcome)
}

pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(&Place::to_start(global)?, &args),
        Command::Keep(args) => up::keep(&Place::to_start(global)?, args.listen),
        Command::Certs(args) => certs::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&place(global)?, &args),
        Command::Man(args) => man::run(&args.dir),
        Command::Top(args) => daemons(top::run(&place(global)?, &args)),
        Command::Init(args) => init::run(&args),
        Command::Dev(args) => daemons(dev::run(&place(global)?, &args)),
        Command::Completion(args) => completion::run(&args),
        Command::Config(args) => settings::run(&place(global)?, &args),
        Command::Check => check::run(&place(global)?),
        Command::Down(args) => down::run(&place(global)?, &args),
        Command::Secret(args) => {
            out::say(&place(global)?.token(&args.daemon)?)?;
            Ok(OK)
        }
        Command::Status(args) => daemons(status::run(&place(global)?, &args)),
        Command::Apps(args) => daemons(apps::run(&place(global)?, &args)),
        Command::Events(args) => daemons(events::run(&place(global)?, &args)),
        Command::Stop(args) => daemons(life::stop(&place(global)?, &args)),
        Command::Start(args) => daemons(life::start(&place(global)?, &args)),
        Command::Wait(args) => daemons(wait::run(&place(global)?, &args)),
        Command::Doctor(args) => daemons(doctor::run(&place(global)?, &args)),
        Command::Logs(args) => daemons(logs::run(&place(global)?, &args)),
        Command::Audit(args) => audit::run(&place(global)?, &args),
        Command::Metrics => daemons(metrics::run(&place(global)?)),
        Command::Pause(args) => daemons(pause::pause(&place(global)?, &args)),
        Command::Resume(args) => daemons(pause::resume(&place(global)?, &args)),
        Command::Restart(args) => daemons(restart::run(&place(global)?, &args)),
        Command::Plan(args) => daemons(plan::plan(&place(global)?, &args)),
        Command::Apply(args) => daemons(plan::apply(&place(global)?, &args)),
        Command::Push(args) => daemons(push::run(&place(global)?, &args)),
        Command::Releases(args) => daemons(releases::releases(&place(global)?, &args)),
        Command::Rollback(args) => daemons(releases::rollback(&place(global)?, &args)),
    }
}

fn place(global: &Global) -> Result<Place, Failure> {
    Place::find(global)
}

/// Runs a command that talks to daemons.
fn daemons(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    up::runtime()?.block_on(command)
}
