//! The command line, and the text of `--help` and of the manual pages.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use nexushub_launch::daemon::DAEMONS as DAEMONS_OF_PLATFORM;

use crate::{
    apply::Apply,
    apps::Apps,
    audit::Audit,
    bootstrap::Bootstrap,
    check::Check,
    completion::Completion,
    dev::Dev,
    doctor::Doctor,
    down::Down,
    events::Events,
    init::Init,
    life::Life,
    login::{Login, Logout},
    logs::Logs,
    pause::{Pause, Resume},
    plan::Plan,
    push::Push,
    releases::{Releases, Rollback},
    remove::Remove,
    restart::Restart,
    settings::Config,
    shapes,
    status::Status,
    top::Top,
    wait::Wait,
};

/// The names of a platform's daemons, in the order in which they are started.
pub(crate) const DAEMONS: [&str; DAEMONS_OF_PLATFORM.len()] = {
    let mut names = [""; DAEMONS_OF_PLATFORM.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = DAEMONS_OF_PLATFORM[at].name;
        at += 1;
    }
    names
};

/// Run a NexusHub platform on this machine, and use it.
///
/// A platform keeps everything below one folder, its home. Without --home that is `.nexushub` in the project (the folder of
/// nexushub.toml, or of dist/config/nexushub.toml, here or above) where that exists; elsewhere it is the machine's own
/// platform in /run/nexushub and /var/lib/nexushub, which systemd runs.
///
/// After `nexushub login URL` the platform at that address is meant, until `nexushub logout`; but in a project with a
/// platform of its own that one, and --platform, --home and --config go before both. These work with a platform elsewhere: push,
/// dev, apps, status, logs, events, releases, rollback, stop, start, restart APP, pause, resume, wait. What else there is needs the
/// machine itself.
#[derive(Debug, Parser)]
#[command(name = "nexushub", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failure (the message says what to do), 2 wrong usage; `plan` and `up` have more, see their help.\n\nThere is no `exec` into an app's box, by design: what runs there is what was pushed. See `logs`, and push a changed app."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// The platform's home: all its state lies below it
    #[arg(long, global = true, value_name = "DIR", env = "NEXUSHUB_HOME", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// The configuration file [default: nexushub.toml of the home, else of the project]
    #[arg(long, global = true, value_name = "FILE", env = "NEXUSHUB_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// The platform: `local` for one on this machine, or an address of one where you are logged in
    #[arg(long, global = true, value_name = "local|URL", env = "NEXUSHUB_PLATFORM", hide_env_values = true)]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the platform, and keep it up until it is told to stop
    ///
    /// Stays in the foreground: Ctrl-C stops the platform and its apps in order, SIGHUP rolls it to new executables and
    /// configuration, and a supervisor that crashes is started again. Ends with the supervisor's exit code when it can't
    /// start.
    Up(Up),
    /// Stop the platform and its apps, in order
    Down(Down),
    /// Log in at a platform on another machine: from then on it is the one that is meant
    ///
    /// For administrators there. The password is asked for at the terminal, or read as a line from standard input where that is
    /// none, and is not kept; what is kept is a session, which only you can read, in $XDG_CONFIG_HOME/nexushub or
    /// ~/.config/nexushub. It ends by `nexushub logout`, after 30 days without use, or by an administrator's word.
    /// A platform on this machine is named by `--platform local`, `--home DIR`, or by working in its project.
    Login(Login),
    /// Log out at a platform on another machine, and forget the session
    ///
    /// All your sessions there end, those of browsers too. Without --platform it is the one that is meant elsewhere.
    Logout(Logout),
    /// Show what runs, and why what does not run does not
    #[command(after_long_help = shapes::STATUS)]
    Status(Status),
    /// Show the apps: state, where each came from, its package, memory, address
    ///
    /// Those that were pushed are there also while they are stopped.
    #[command(after_long_help = shapes::APPS)]
    Apps(Apps),
    /// Examine what this machine can do for apps, and say what to do where it can't
    ///
    /// Looks at kernel, KVM, listener, certificate, ports, clock, disk and units; and asks the platform, if it runs, which boxes
    /// it found for apps, what of their isolation this machine does not enforce, and whether they reach the internet. Exit code 1 when something keeps apps from running.
    #[command(after_long_help = shapes::DOCTOR)]
    Doctor(Doctor),
    /// Show what an app or a daemon said
    #[command(after_long_help = shapes::LOGS)]
    Logs(Logs),
    /// Show what changes, as it changes: apps and daemons that start, fail, end
    ///
    /// Begins with how everything is now, and goes on until it is interrupted, also over restarts of the daemons. Of a platform
    /// elsewhere it tells of the apps that were pushed.
    #[command(after_long_help = shapes::EVENTS)]
    Events(Events),
    /// Watch daemons, apps, their requests, times and memory on a screen
    ///
    /// Requests a second and times are of the last few seconds. q ends it, arrows choose an app, / filters, l shows the log. Of a platform
    /// elsewhere it shows the apps that were pushed; their memory is as of some seconds ago there.
    Top(Top),
    /// Print what the proxy counts, as Prometheus reads it
    ///
    /// Requests, answers by class, times and bytes of each app, connections, refusals; since the proxy was started. To have it
    /// scraped, set platform.metrics_listen: GET /metrics there, by plain HTTP and without a login.
    Metrics,
    /// Show who did what on the platform, or verify that record
    ///
    /// Each daemon notes the changes that are asked of it: who asked, from where, what came of it. Each entry bears the digest
    /// of the one before it, so what was changed or taken out between two others shows. Changes of users, rules and applications
    /// are on the admin app's page Audit, sign-ins on each user's own page.
    #[command(after_long_help = shapes::AUDIT)]
    Audit(Audit),
    /// Replace a daemon, or start an app anew
    ///
    /// Replacing a daemon leaves every app running.
    Restart(Restart),
    /// Stop an app that was pushed; its package and its data stay
    ///
    /// Apps of the configuration and of the admin app run for as long as they are asked for: remove them there, or have their
    /// requests refused with `pause --stop`.
    Stop(Life),
    /// Start an app that was stopped, or that is asleep
    ///
    /// One that is on its way down is started once it is. Apps of the configuration and of the admin app are theirs to start and
    /// to stop: they are waited for, and `restart` starts them anew.
    Start(Life),
    /// Remove an app that was pushed, with its releases and its data
    ///
    /// It can't be undone: at a terminal it is asked about, elsewhere `--yes` says that it may go. An app of the configuration is
    /// removed in the configuration, one of the admin app in the admin app; their data stay.
    #[command(visible_alias = "delete")]
    Remove(Remove),
    /// Wait until an app answers, or is gone
    ///
    /// Exit code 0 when it is so, 1 when the time is over: the message says how it is instead.
    Wait(Wait),
    /// Have an app's requests wait
    ///
    /// Those under way go on. What waits is answered once the app is resumed, by whatever runs then; a few seconds' worth, as
    /// proxy.pause_ms says. A pause holds over restarts of everything.
    Pause(Pause),
    /// Send a paused app its requests again
    Resume(Resume),
    /// Show what taking up the configuration would change, and what of the admin app's list is held back
    ///
    /// The configuration is that on disk, or FILE as if it stood in its place: instances that would be added, removed, restarted
    /// (the next generation takes over from the present one) or changed while they run, each with the keys that differ; settings,
    /// with who takes them up; executables that are others by now than those that daemons were started from; daemons that would be replaced
    /// for either, while apps run on. Where nobody keeps what the daemons were started with (units), neither settings nor executables are known, and
    /// that is said. Nothing is changed. Instances that vanished from the admin app's list in great number go on until their removal is confirmed (`nexushub apply --confirm-removals`). Exit code 0 when nothing would change
    /// and nothing is held, 1 when that can't be told or the configuration can't be, 2 when something would.
    #[command(after_long_help = shapes::PLAN)]
    Plan(Plan),
    /// Take up the configuration as it is on disk, or let go of what is held back
    ///
    /// Does what `nexushub plan` says, after every daemon judged it, and ends when what was added or restarted answers. One that can't be is refused
    /// as a whole. New executables of daemons are taken up with it, also where they are all that is new; a new supervisor is not: it is for
    /// `down` and `up`, or systemctl restart. Where settings and executables are not known (units), that is said, and they are for systemctl reload. Exit code 0 when all of it that is known holds, 1 when something refused it or doesn't answer in time.
    Apply(Apply),
    /// Upload an app, install it, and wait until it answers
    ///
    /// The folder or archive holds the executable bin/app and, if it likes, files to serve below static/ and a manifest,
    /// nexushub.toml. Pushing what runs already changes nothing. If a first package is refused, nothing of it is left. Other apps may ask for
    /// what is below /public/ of it; for its /api/ only once it names its callers, which it can as an application of the admin app's or
    /// an entry of the configuration.
    Push(Push),
    /// Show which releases of a pushed app are kept
    #[command(after_long_help = shapes::RELEASES)]
    Releases(Releases),
    /// Go back to an earlier release of a pushed app, and wait until it answers
    ///
    /// To the last one that was healthy, or to the one that is named. What runs goes on until the other one answers.
    Rollback(Rollback),
    /// Make a folder with the least that is an app
    ///
    /// It builds offline, with a compiler and nothing else. `nexushub dev` in that folder runs it.
    Init(Init),
    /// Develop an app: build, push, show what it says; again by `r` or by a changed file, end by `q`
    ///
    /// What is built runs as NAME-dev beside a NAME that was pushed, and is removed at the end, also by Ctrl-C, SIGTERM or the
    /// end of the terminal. Without a terminal there are no keys; then signals end it, and --watch builds again.
    Dev(Dev),
    /// Print the operators' token of a daemon, for grpcurl and the like
    #[command(
        after_help = "Example:\n  grpcurl -unix -plaintext -authority localhost \\\n    -H \"authorization: Bearer $(nexushub secret procmgr)\" RUN/procmgr.sock list"
    )]
    Secret(Secret),
    /// Show what the configuration comes to, judge it, or print all there is to say
    Config(Config),
    /// Judge the configuration and the files it names (as `config check`)
    #[command(after_long_help = shapes::CHECK)]
    Check(Check),
    /// Make a development CA and a certificate for the platform's names
    ///
    /// Keeps what is good: a CA is made once, the server's certificate again when it is about to expire.
    Certs(Certs),
    /// Add the platform's own apps, login and admin, to its configuration
    ///
    /// Writes an instance for each into the folder that provider.apps_dir names, and prints the first administrator's password,
    /// once. Where they are there already, only the release follows the installed programs. A running platform takes that up
    /// with `nexushub restart provider`.
    Bootstrap(Bootstrap),
    /// Print what a shell needs to complete this command's lines
    #[command(
        after_help = "Where the shells look for it:\n  bash    nexushub completion bash > ~/.local/share/bash-completion/completions/nexushub\n  zsh     nexushub completion zsh > ~/.zfunc/_nexushub     (with fpath+=~/.zfunc before compinit)\n  fish    nexushub completion fish > ~/.config/fish/completions/nexushub.fish\n  elvish  nexushub completion elvish >> ~/.config/elvish/rc.elv"
    )]
    Completion(Completion),
    /// Show the manual page, or write a page for each command into a folder
    ///
    /// On a terminal `man` shows it, in whatever pager that uses (MANPAGER); elsewhere it is written as roff.
    Man(Man),
    /// Keep a supervisor up in the background (what `up --detach` starts)
    #[command(hide = true)]
    Keep(Keep),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    /// Where to answer HTTPS, instead of the configured address
    #[arg(long, value_name = "ADDRESS:PORT", env = "NEXUSHUB_LISTEN", hide_env_values = true)]
    pub(crate) listen: Option<SocketAddr>,
    /// Return once the platform is ready; it goes on in the background
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Succeed when the platform is up already, whatever its apps do: for scripts
    #[arg(long)]
    pub(crate) if_down: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Keep {
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Secret {
    /// The daemon that is to be asked
    #[arg(value_parser = DAEMONS)]
    pub(crate) daemon: String,
}

#[derive(Debug, Args)]
pub(crate) struct Certs {
    /// Folder of ca.crt, ca.key, server.crt and server.key
    #[arg(long, value_name = "DIR", default_value = "dist/certs")]
    pub(crate) dir: PathBuf,
    /// The base domain
    #[arg(long, value_name = "NAME", default_value = "yesterday.localhost")]
    pub(crate) domain: String,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Folder to write the pages of all commands to
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

#[cfg(test)]
mod tests;
