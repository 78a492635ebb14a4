//! `nexushub completion`: what a shell needs to complete a command line, from the same source as `--help`.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell as Generator;

use crate::{
    args::Cli,
    failure::{Failure, OK},
    out,
};

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell that is to read it
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
}

impl From<Shell> for Generator {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
            Shell::Elvish => Self::Elvish,
        }
    }
}

/// `nexushub completion`
pub(crate) fn run(args: &Completion) -> Result<u8, Failure> {
    out::write(&script(args.shell))?;
    Ok(OK)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(Generator::from(shell), &mut Cli::command(), "nexushub", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command_that_people_type() {
        let command = Cli::command();
        let names: Vec<&str> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(clap::Command::get_name)
            .collect();
        assert!(names.len() > 15, "{names:?}");
        for shell in Shell::value_variants() {
            let script = String::from_utf8_lossy(&script(*shell)).into_owned();
            let missing = names.iter().find(|name| !script.contains(**name));
            assert_eq!(missing, None, "{shell:?}");
        }
    }
}
