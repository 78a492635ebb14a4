//! The manual pages, from the same source as `--help`.

use std::{
    fs,
    io::{self, IsTerminal},
    path::Path,
    process::Command,
};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::{
    args::Cli,
    failure::{Failure, OK},
    out,
};

/// Writes a page for the command and for each of its subcommands into a folder; without one shows that of the command.
pub(crate) fn run(folder: Option<&Path>) -> Result<u8, Failure> {
    match folder {
        Some(folder) => write(folder)?,
        None if io::stdout().is_terminal() => show()?,
        None => out::write(&page())?,
    }
    Ok(OK)
}

fn write(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|error| Failure::io("write manual pages to", folder, &error))
}

/// The page of the command, as roff.
fn page() -> Vec<u8> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page).expect("memory takes what is written");
    page
}

/// Has `man` show it, which knows how people like to read.
fn show() -> Result<(), Failure> {
    let unshown = |error: &io::Error| {
        let hint = "`nexushub --help` says the same; the page itself: nexushub man > nexushub.1";
        Failure::new(format!("could not have `man` show the page: {error}"), hint)
    };
    let file = tempfile::NamedTempFile::new().map_err(|error| unshown(&error))?;
    fs::write(file.path(), page()).map_err(|error| unshown(&error))?;
    let shown = Command::new("man").arg("--local-file").arg(file.path()).status();
    match shown.map_err(|error| unshown(&error))? {
        status if status.success() => Ok(()),
        status => Err(unshown(&io::Error::other(status.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_that_people_type_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        run(Some(folder.path())).unwrap();
        for page in ["nexushub.1", "nexushub-up.1", "nexushub-push.1", "nexushub-status.1"] {
            let text = fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }

    #[test]
    fn the_page_alone_is_that_of_the_command() {
        let page = String::from_utf8(page()).unwrap();
        assert!(page.contains(".TH nexushub 1") && page.contains("nexushub\\-push(1)"), "{page}");
    }
}
