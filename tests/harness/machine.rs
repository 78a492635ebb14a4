//! What this machine can do, as the tests find it out themselves: what the platform says that it can't enforce is believed only
//! where that is so.

use std::{env, fs, path::Path};

/// Whether the platform enforces something here. Where it says no, that has to be true in CI; elsewhere it is told, and the test
/// goes on without.
///
/// # Panics
/// In CI, where the machine could have done it.
#[must_use]
pub fn enforces(what: &str, says: bool, can: bool) -> bool {
    println!("{what}: {} here", if says { "enforced" } else { "not enforced" });
    assert!(
        says || !can || env::var_os("CI").is_none(),
        "{what}: this machine can enforce it, but it is not"
    );
    says
}

/// Whether somebody without root can give boxes ids of their own here: where root, who says for the tests which ids those are, finds
/// the system's program for it. Otherwise that is told, and the test goes on without.
#[must_use]
pub fn gives_ids() -> bool {
    let gives = nix::unistd::geteuid().is_root() && Path::new("/usr/bin/newuidmap").exists();
    println!(
        "boxes of an ordinary user have {} here",
        if gives { "ids of their own" } else { "that user's id" }
    );
    gives
}

/// Says that a story isn't told on this machine, or not to its end.
///
/// # Panics
/// In CI, where that is a failure.
pub fn untold(why: &str) {
    println!("not told on this machine: {why}");
    assert!(env::var_os("CI").is_none(), "not told: {why}");
}

/// Whether who runs the tests may make control groups with this file in them.
#[must_use]
pub fn has_groups_with(file: &str) -> bool {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let controller = file.split('.').next().unwrap_or_default();
    let mut groups = table.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, own) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let older = controllers.split(',').any(|one| one == controller);
        let tops = match controllers {
            "" => vec!["/sys/fs/cgroup".to_owned(), "/sys/fs/cgroup/unified".to_owned()],
            _ => Vec::from_iter(older.then(|| format!("/sys/fs/cgroup/{controllers}"))),
        };
        let groups = tops.into_iter().map(|top| Path::new(&top).join(own));
        groups.into_iter().find(|group| group.join("cgroup.procs").exists())
    });
    groups.any(|group| {
        let trial = group.join(format!("trial-{}", std::process::id()));
        let there = fs::create_dir(&trial).is_ok() && trial.join(file).exists();
        let _ = fs::remove_dir(&trial);
        there
    })
}
