//! `nexushub remove`: an app that was pushed goes for good, with its releases and its data. It can't be undone, so it is asked about.

use std::{
    io::{self, BufRead, IsTerminal, Write, stderr, stdin},
    time::Duration,
};

use clap::Args;
use http::Method;

use crate::{
    failure::{Failure, OK},
    hub::Hub,
    life, out, pushed,
    table::one_line,
    wait::{self, Wish},
};

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// An app that was pushed (id, app id, name it was pushed by, or host name)
    #[arg(value_name = "APP")]
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Seconds to wait until its process has ended
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// `nexushub remove`
pub(crate) async fn run(hub: &Hub, args: &Remove) -> Result<u8, Failure> {
    let Some(app) = pushed::named(hub, &args.name).await? else {
        return Err(life::not_pushed(hub, &args.name).await?);
    };
    let what = format!("`{}` at {}, with its releases and its data", app.app_id, app.host_name);
    if !args.yes {
        agreed(&what)?;
    }
    life::order(&hub.client(None)?.0, &app.id, Method::DELETE, "", "remove the app").await?;
    wait::until(hub, &app.id, Wish::Gone, Duration::from_secs(args.timeout)).await?;
    out::say(&format!("removed {}", one_line(&what)))?;
    Ok(OK)
}

/// Asks whoever sits at the terminal.
fn agreed(what: &str) -> Result<(), Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask at", "say that it may go: --yes"));
    }
    let answer = ask(&format!("remove {}? [y/N] ", one_line(what)));
    if answer.is_ok_and(|answer| says_yes(&answer)) {
        return Ok(());
    }
    Err(Failure::new("nothing was removed", ""))
}

fn ask(question: &str) -> io::Result<String> {
    write!(stderr(), "{question}")?;
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(answer)
}

fn says_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::says_yes;

    #[test]
    fn nothing_but_yes_is_yes() {
        assert!(["y\n", "Y", " yes \r\n", "YES"].into_iter().all(says_yes));
        assert!(!["", "\n", "n", "ye", "yes please", "remove"].into_iter().any(says_yes));
    }
}
