//! From the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;

use crate::{
    apply, apps,
    args::{Cli, Command, Global},
    audit, bootstrap, certs, check, completion, dev, doctor, down, events,
    failure::{Failure, OK},
    help,
    hub::Hub,
    init, life, login, logs, man, metrics, out, pause,
    place::Place,
    plan, push, releases, remove, restart, settings, status, top, up, wait,
};

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    out::look();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            help::show(&answer);
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

pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(&to_start(global)?, &args),
        Command::Keep(args) => up::keep(&to_start(global)?, args.listen),
        Command::Login(args) => login::login(global, &args),
        Command::Logout(args) => login::logout(global, &args),
        Command::Certs(args) => certs::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&place(global, "bootstrap")?, &args),
        Command::Man(args) => man::run(args.dir.as_deref()),
        Command::Top(args) => daemons(top::run(&Hub::find(global)?, &args)),
        Command::Init(args) => init::run(&args),
        Command::Dev(args) => daemons(dev::run(&Hub::find(global)?, &args)),
        Command::Completion(args) => completion::run(&args),
        Command::Config(args) => settings::run(&Place::find(global)?, &args),
        Command::Check(args) => check::run(&Place::find(global)?, &args),
        Command::Down(args) => down::run(&place(global, "down")?, &args),
        Command::Secret(args) => {
            out::say(&place(global, "secret")?.token(&args.daemon)?)?;
            Ok(OK)
        }
        Command::Status(args) => daemons(status::run(&Hub::find(global)?, &args)),
        Command::Apps(args) => daemons(apps::run(&Hub::find(global)?, &args)),
        Command::Events(args) => daemons(events::run(&Hub::find(global)?, &args)),
        Command::Stop(args) => daemons(life::stop(&Hub::find(global)?, &args)),
        Command::Start(args) => daemons(life::start(&Hub::find(global)?, &args)),
        Command::Remove(args) => daemons(remove::run(&Hub::find(global)?, &args)),
        Command::Wait(args) => daemons(wait::run(&Hub::find(global)?, &args)),
        Command::Doctor(args) => daemons(doctor::run(&place(global, "doctor")?, &args)),
        Command::Logs(args) => daemons(logs::run(&Hub::find(global)?, &args)),
        Command::Audit(args) => audit::run(&place(global, "audit")?, &args),
        Command::Metrics => daemons(metrics::run(&place(global, "metrics")?)),
        Command::Pause(args) => daemons(pause::pause(&Hub::find(global)?, &args)),
        Command::Resume(args) => daemons(pause::resume(&Hub::find(global)?, &args)),
        Command::Restart(args) => daemons(restart::run(&Hub::find(global)?, &args)),
        Command::Plan(args) => daemons(plan::plan(&place(global, "plan")?, &args)),
        Command::Apply(args) => daemons(apply::run(&place(global, "apply")?, &args)),
        Command::Push(args) => daemons(push::run(&Hub::find(global)?, &args)),
        Command::Releases(args) => daemons(releases::releases(&Hub::find(global)?, &args)),
        Command::Rollback(args) => daemons(releases::rollback(&Hub::find(global)?, &args)),
    }
}

/// The platform on this machine that a command needs.
fn place(global: &Global, command: &str) -> Result<Place, Failure> {
    Hub::find(global)?.place(command)
}

/// The platform that is to be started, which is always on this machine.
fn to_start(global: &Global) -> Result<Place, Failure> {
    if global.platform.is_some() {
        place(global, "up")?;
    }
    Place::to_start(global)
}

/// Runs a command that talks to daemons.
fn daemons(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    up::runtime()?.block_on(command)
}
