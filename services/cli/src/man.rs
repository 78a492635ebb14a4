//! The manual pages, from the same source as `--help`.

use std::{fs, path::Path};

use clap::CommandFactory;

use crate::{
    args::Cli,
    failure::{Failure, OK},
};

/// Writes a page for the command and for each of its subcommands.
pub(crate) fn run(folder: &Path) -> Result<u8, Failure> {
    fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|error| Failure::io("write manual pages to", folder, &error))?;
    Ok(OK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_that_people_type_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path()).unwrap();
        for page in ["nexushub.1", "nexushub-up.1", "nexushub-push.1", "nexushub-status.1"] {
            let text = fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
