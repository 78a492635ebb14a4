//! `nexushub init`: the least that is an app, in a folder of its own. What it writes builds with what is on the machine: no package
//! of anybody else is fetched.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use nexushub_chassis::names::{is_label, shown};

use crate::{
    dev::NAME_MAX,
    failure::{Failure, OK},
    out,
};

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// What to call it: a folder of this name is made here, and it is part of the host name
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is written in
    #[arg(long, value_enum, default_value_t)]
    template: Template,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Rust without crates; needs cargo
    #[default]
    Rust,
    /// C without libraries; needs cc
    C,
}

/// A file of a template: its path, its text, and whether it is run.
type File = (&'static str, &'static str, bool);

const COMMON: [File; 2] = [
    ("README.md", include_str!("../templates/README.md"), false),
    (".gitignore", include_str!("../templates/gitignore"), false),
];
const RUST: [File; 3] = [
    ("Cargo.toml", include_str!("../templates/rust/Cargo.toml"), false),
    ("src/main.rs", include_str!("../templates/rust/app.rs"), false),
    ("build", include_str!("../templates/rust/build"), true),
];
const C: [File; 2] = [
    ("app.c", include_str!("../templates/c/app.c"), false),
    ("build", include_str!("../templates/c/build"), true),
];

/// `nexushub init`
pub(crate) fn run(args: &Init) -> Result<u8, Failure> {
    let name = judged(&args.name)?;
    let folder = PathBuf::from(name);
    vacant(&folder)?;
    let own: &[File] = match args.template {
        Template::Rust => &RUST,
        Template::C => &C,
    };
    for (path, text, runs) in COMMON.iter().chain(own) {
        write(&folder.join(path), &text.replace("{{name}}", name), *runs)?;
    }
    out::say(&format!("{name}/ is an app; next: cd {name} && nexushub dev --watch"))?;
    Ok(OK)
}

/// A name that can be a folder's and a host's.
fn judged(name: &str) -> Result<&str, Failure> {
    if is_label(name) && name.len() <= NAME_MAX && !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(name);
    }
    let message = format!("{} can't be an app's name", shown(name));
    Err(Failure::usage(message, format!("use lower-case letters, digits and `-`, at most {NAME_MAX}")))
}

/// Nothing is written over.
fn vacant(folder: &Path) -> Result<(), Failure> {
    match fs::read_dir(folder).map(Iterator::count) {
        Ok(1..) => {
            let hint = "give another name, or go elsewhere: nothing is written over";
            Err(Failure::new(format!("{} is there already, and not empty", folder.display()), hint))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io("read", folder, &error))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str, runs: bool) -> Result<(), Failure> {
    let failed = |error| Failure::io("write", path, &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = fs::OpenOptions::new();
    file.write(true).create_new(true).mode(if runs { 0o755 } else { 0o644 });
    file.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_host_name_is_refused_before_anything_is_written() {
        for bad in ["", "-a", "A", "a_b", "a/b", "..", "a.b", &"x".repeat(NAME_MAX + 1)] {
            assert_eq!(judged(bad).unwrap_err().code, crate::failure::USAGE, "{bad}");
        }
        assert!(judged("shop-2").is_ok() && judged(&"x".repeat(NAME_MAX)).is_ok());
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(vacant(folder.path()).is_ok() && vacant(&folder.path().join("new")).is_ok());
        fs::write(folder.path().join("mine"), "").unwrap();
        assert!(vacant(folder.path()).unwrap_err().message.contains("not empty"));
        let file = folder.path().join("mine");
        assert!(write(&file, "theirs", false).is_err() && fs::read(&file).unwrap().is_empty());
    }

    #[test]
    fn every_template_has_a_build_that_runs_and_a_readme_of_four_lines() {
        for template in [&RUST[..], &C[..]] {
            assert!(template.iter().any(|(path, _, runs)| *path == "build" && *runs));
        }
        assert_eq!(COMMON[0].1.lines().filter(|line| !line.is_empty()).count(), 4);
    }
}
