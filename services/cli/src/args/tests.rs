//! What people read: the command line, its help and its errors, compared with the files in `help/` as a whole.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use std::{env, fs, path::Path};

use clap::CommandFactory;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_exits_2_and_help_exits_0() {
    for (args, code) in [
        (&["nexushub", "--help"][..], 0),
        (&["nexushub", "logs", "--help"], 0),
        (&["nexushub", "--version"], 0),
        (&["nexushub"], 2),
        (&["nexushub", "fly"], 2),
        (&["nexushub", "secret", "nobody"], 2),
        (&["nexushub", "up", "--listen", "8443"], 2),
        (&["nexushub", "push", "dir"], 2),
        (&["nexushub", "apply", "nexushub.toml"], 2),
    ] {
        assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), code, "{args:?}");
    }
}

#[test]
fn home_may_stand_before_and_after_the_command() {
    for args in [["nexushub", "--home", "/h", "status"], ["nexushub", "status", "--home", "/h"]] {
        assert_eq!(Cli::try_parse_from(args).unwrap().global.home, Some("/h".into()));
    }
}

/// Where the texts lie.
fn texts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("help")
}

/// Compares a text with its file, or renews the file when that is asked for.
fn is_as_filed(name: &str, text: &str, wrong: &mut Vec<String>) {
    let path = texts().join(format!("{name}.txt"));
    if env::var_os("NEXUSHUB_RENEW_HELP").is_some() {
        fs::write(&path, text).unwrap();
    }
    if fs::read_to_string(&path).unwrap_or_default() != text {
        wrong.push(format!("{name}:\n{text}"));
    }
}

/// Fails with what differs.
fn expect_none(wrong: &[String]) {
    let renew = "these are other than in services/cli/help; if they should be, renew the files and read the difference:\n  \
                 NEXUSHUB_RENEW_HELP=1 cargo test --release -p nexushub help";
    assert!(wrong.is_empty(), "{renew}\n\n{}", wrong.join("\n"));
}

#[test]
fn the_help_of_every_command_is_what_was_read_and_found_good() {
    let mut command = Cli::command();
    command.build();
    let mut wrong = Vec::new();
    is_as_filed("nexushub", &command.render_long_help().to_string(), &mut wrong);
    let mut names = vec!["nexushub".to_owned(), "errors".to_owned()];
    for command in
        command.get_subcommands_mut().filter(|command| command.get_name() != "help" && !command.is_hide_set())
    {
        names.push(command.get_name().to_owned());
        let text = command.render_long_help().to_string();
        is_as_filed(names.last().unwrap(), &text, &mut wrong);
        let below = names.last().unwrap().clone();
        for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            names.push(format!("{below}-{}", command.get_name()));
            let text = command.render_long_help().to_string();
            is_as_filed(names.last().unwrap(), &text, &mut wrong);
        }
    }
    expect_none(&wrong);
    for file in fs::read_dir(texts()).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(names.iter().any(|known| known == name), "{}: of no command", file.display());
    }
}

/// What is said on standard error.
fn refused(arguments: &[&str]) -> String {
    let said = match Cli::try_parse_from([&["nexushub", "--home", "/nowhere/home"], arguments].concat()) {
        Err(wrong) => wrong.to_string(),
        Ok(cli) => crate::command::run(cli)
            .map_or_else(|failure| format!("nexushub: {failure}\n"), |code| panic!("{code}")),
    };
    format!("$ nexushub {}\n{said}\n", arguments.join(" "))
}

#[test]
fn errors_and_help_go_on_saying_what_happened_to_what_and_what_to_do() {
    let cases: [&[&str]; 16] = [
        &["fly"],
        &["pusch"],
        &["secret", "nobody"],
        &["push", "dir"],
        &["wait"],
        &["wait", "shop", "--for", "ever"],
        &["completion", "tcsh"],
        &["apps", "-o", "xml"],
        &["apps"],
        &["stop", "shop"],
        &["start", "shop"],
        &["wait", "shop"],
        &["events"],
        &["logs", "shop"],
        &["restart", "supervisor"],
        &["push", "/nowhere/dir", "--name", "a/b"],
    ];
    let mut wrong = Vec::new();
    is_as_filed("errors", &cases.map(refused).concat(), &mut wrong);
    expect_none(&wrong);
}
