//! What a configuration makes of this daemon: its static instances, and the rules that all entries are held to. Read of the one that
//! is in force at the start, and of any other to tell what it would come to (`nexushub plan`).

use std::path::PathBuf;

use nexushub_chassis::{
    Fault,
    launch::{config, handoff::Handoff},
    names::Zone,
    setup::{Setup, find_config},
};

use crate::{
    admin::listing::Hold,
    config::Config,
    configured::{self, Document},
    desired::Rules,
    instance::Entry,
    merge::Ground,
    typed::Judge,
};

/// The static instances of the configuration in force.
///
/// # Errors
/// The first entry that can't be, or a file that can't be read.
pub fn present(setup: &Setup<Config>) -> Result<Vec<Entry>, Fault> {
    // The file again, for the lines of its entries; a daemon without one has none listed.
    let path = find_config(&Handoff::from_env()?)?.path;
    let document = path.and_then(|path| {
        configured::text(&path).ok().map(|text| Document { path: named(path, setup), text })
    });
    statics(setup, document.as_ref())
}

/// The static instances and the rules of another configuration, which would stand in place of the present one.
///
/// # Errors
/// As `--check` of this daemon.
pub fn proposed(path: PathBuf, text: String) -> Result<(Vec<Entry>, Rules), Fault> {
    let handoff = Handoff::from_env()?;
    of(&find_config(&handoff)?.with(path, text)?, &handoff)
}

fn of(file: &config::Config, handoff: &Handoff) -> Result<(Vec<Entry>, Rules), Fault> {
    let setup: Setup<Config> = Setup::load("provider", handoff, file)?;
    setup.config.judge()?;
    let document = file.path.clone().map(|path| Document { path, text: file.text().to_owned() });
    Ok((statics(&setup, document.as_ref())?, rules(&setup)))
}

fn statics(setup: &Setup<Config>, document: Option<&Document>) -> Result<Vec<Entry>, Fault> {
    let listed = setup.config.instance.clone();
    configured::read(document, listed, &setup.resolve(&setup.config.apps_dir), &judge(setup))
}

/// A supervisor hands each generation a copy of the configuration; people know the file by its own name.
fn named(path: PathBuf, setup: &Setup<Config>) -> PathBuf {
    if path.starts_with(&setup.run) { PathBuf::from("nexushub.toml") } else { path }
}

/// By what entries are judged.
#[must_use]
pub fn judge(setup: &Setup<Config>) -> Judge {
    Judge { zone: Zone::from(&setup.platform), root: Some(setup.root.clone()) }
}

/// What entries are held to.
#[must_use]
pub fn rules(setup: &Setup<Config>) -> Rules {
    let config = &setup.config;
    Rules {
        ground: Ground {
            data_root: setup.state.join("provider/data"),
            reserved_ids: config.reserved_instances.iter().cloned().collect(),
            reserved_hosts: config.reserved_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        },
        max_debug: config.max_debug_instances,
        hold: Hold { share_percent: config.hold_share_percent, least: config.hold_least },
        keep_releases: config.keep_releases,
        dynamic: (config.dynamic_driver, config.dynamic_egress),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    fn proposed_in(root: &Path, text: &str) -> Result<(Vec<Entry>, Rules), Fault> {
        let handoff = Handoff {
            config: None,
            run: Some(root.join("run")),
            state: Some(root.join("state")),
            listen: None,
            credentials: None,
            watchdog: None,
        };
        let file = config::Config::load(None, root)?.with(root.join("new.toml"), text.to_owned())?;
        of(&file, &handoff)
    }

    #[test]
    fn another_configuration_is_read_as_if_it_were_in_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("more")).unwrap();
        let more = "id='b'\nhost_name='b'\nrelease='r'\n";
        std::fs::write(folder.path().join("more/b.toml"), more).unwrap();
        let text = "[provider]\napps_dir='more'\ndynamic_driver='sandbox'\n[[provider.instance]]\nid='a'\nhost_name='a'\nrelease='r'\n";
        let (statics, rules) = proposed_in(folder.path(), text).unwrap();
        let ids: Vec<_> = statics.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(statics[0].fields.release, Some(folder.path().join("r")), "from the project's root");
        assert_eq!(rules.dynamic.0, crate::instance::Driver::Sandbox);
    }

    #[test]
    fn what_is_wrong_with_it_is_said_with_its_own_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let bad = |text: &str| proposed_in(folder.path(), text).unwrap_err().object;
        let entry = "[[provider.instance]]\nid='a'\nrelease='r'\nhost_name='b b'\n";
        for (text, end) in [
            (entry, "new.toml:4: provider.instance.host_name"),
            ("[provider]\nkeep_releases=101\n", "provider.keep_releases"),
            ("[provider]\n\nx=1\n", "new.toml:3: provider.x"),
            ("[platform]\nprofile='x'\n", "new.toml: platform.profile"),
            ("[", "new.toml:1"),
        ] {
            let object = bad(text);
            assert!(object.ends_with(end), "{object}");
        }
    }
}
