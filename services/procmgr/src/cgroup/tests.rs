//! Tables of machines, and real groups where this machine lets us make some.
#![allow(clippy::unwrap_used)]

use std::process::{Child, Command};

use super::*;

const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw";
const UNIFIED: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

fn found(mounts: &str, own: &str) -> Vec<(bool, String)> {
    let shown = |found: Hierarchy| (found.unified, found.own.display().to_string());
    hierarchies(mounts, own).into_iter().map(shown).collect()
}

fn id() -> InstanceId {
    InstanceId::parse("a").unwrap()
}

#[test]
fn every_hierarchy_of_use_is_found_with_the_own_group_in_it() {
    let own = "9:name=systemd:/x\n5:devices:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/u\n";
    assert_eq!(
        found(HYBRID, own),
        [
            (false, "/sys/fs/cgroup/memory/a/b".to_owned()),
            (false, "/sys/fs/cgroup/cpu/".to_owned()),
            (true, "/sys/fs/cgroup/unified/u".to_owned())
        ]
    );
    assert_eq!(
        found(UNIFIED, "0::/system.slice/a.service\n"),
        [(true, "/sys/fs/cgroup/system.slice/a.service".to_owned())]
    );
    assert_eq!(found("", "0::/\n"), []);
    assert_eq!(found(UNIFIED, "nonsense\n4:memory:/a\n"), []);
}

#[test]
fn a_part_of_a_hierarchy_that_is_mounted_holds_only_its_own_groups() {
    let partial = UNIFIED.replace(" / /sys/fs/cgroup", " /box /sys/fs/cgroup");
    assert_eq!(found(&partial, "0::/box/a\n"), [(true, "/sys/fs/cgroup/a".to_owned())]);
    assert_eq!(found(&partial, "0::/elsewhere\n"), []);
}

#[test]
fn a_group_that_is_kept_for_boxes_is_used_instead_of_the_own_one() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("nexushub.service");
    let used = |unified| Hierarchy { unified, own: own.clone() }.beside().own;
    assert_eq!(used(true), own);
    let kept = dir.path().join(UNIT);
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("cgroup.procs"), "").unwrap();
    assert_eq!((used(true), used(false)), (kept, own.clone()));
}

#[test]
fn a_folder_that_is_no_cgroup_of_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = Path::new("/state");
    let foreign = dir.path().join("a.g1");
    fs::create_dir(&foreign).unwrap();
    clear(std::slice::from_ref(&foreign), state, &id(), 1);
    assert!(foreign.exists());
    let prefix = dir.path().join(prefix(state));
    for own in [prefix.with_added_extension("a.g1"), prefix.join("a.g1")] {
        fs::create_dir_all(&own).unwrap();
        clear(std::slice::from_ref(&own), state, &id(), 2);
        assert!(own.exists());
        clear(std::slice::from_ref(&own), state, &id(), 1);
        assert!(!own.exists());
    }
}

#[test]
fn a_bound_goes_to_the_files_of_the_version_that_is_there_and_a_missing_one_is_told() {
    let limits = Limits { memory_bytes: 1 << 20, cpu_percent: 50, processes: 9, ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let (unified, older) = (dir.path().join("unified"), dir.path().join("older"));
    for (folder, files) in [
        (&unified, ["memory.max", "cpu.max"].as_slice()),
        (&older, ["memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"].as_slice()),
    ] {
        fs::create_dir(folder).unwrap();
        files.iter().for_each(|file| fs::write(folder.join(file), "").unwrap());
    }
    let set = |folders: &[PathBuf]| {
        bounds(&limits).iter().filter_map(|bound| bound.enforce(folders)).collect::<Vec<_>>()
    };
    let is = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap();
    assert_eq!(set(std::slice::from_ref(&older)), Vec::<String>::new());
    assert_eq!(is(&older, "memory.limit_in_bytes"), "1048576");
    assert_eq!(is(&older, "cpu.cfs_quota_us"), "50000");
    assert_eq!(is(&older, "pids.max"), "9");
    let missing = set(std::slice::from_ref(&unified));
    assert!(missing.len() == 1 && missing[0].starts_with("processes: no control group"), "{missing:?}");
    assert_eq!(is(&unified, "cpu.max"), "50000 100000");
    assert_eq!(set(&[]).len(), 3);
    assert!(bounds(&Limits::default()).iter().all(|bound| bound.enforce(&[]).is_none()));
}

#[test]
fn groups_are_made_beside_those_that_an_earlier_version_left_in_one_of_its_own() {
    let (dir, state) = (tempfile::tempdir().unwrap(), Path::new("/state"));
    let earlier = dir.path().join(prefix(state));
    fs::create_dir_all(earlier.join("a.g1")).unwrap();
    for group in [dir.path(), &earlier] {
        fs::write(group.join("cgroup.procs"), "").unwrap();
    }
    let place = prepare(Hierarchy { unified: false, own: dir.path().to_owned() }, state).unwrap();
    assert!(earlier.join("a.g1").exists());
    fs::create_dir(dir.path().join(format!("{}.b.g1", prefix(state)))).unwrap();
    assert_eq!(place.names(), [format!("{}.b.g1", prefix(state))]);
}

#[test]
fn a_generation_that_runs_gets_its_bound_on_processor_time_again() {
    let group = tempfile::tempdir().unwrap();
    let file = group.path().join("cpu.max");
    for (percent, bound) in [(150, "150000 100000"), (0, "max 100000")] {
        fs::write(&file, "2000 100000").unwrap();
        bound_processor(&[group.path().to_owned()], percent);
        assert_eq!(fs::read_to_string(&file).unwrap(), bound);
    }
}

/// A shell in the groups of a generation.
fn shell(groups: &Groups, script: &str) -> Child {
    let join: String = groups.procs.iter().map(|file| format!("echo $$ > {}; ", file.display())).collect();
    Command::new("sh").arg("-c").arg(join + script).spawn().unwrap()
}

#[test]
fn real_groups_bound_count_end_and_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let cgroups = Cgroups::find(dir.path());
    let limits = Limits { memory_bytes: 32 << 20, processes: 8, ..Limits::default() };
    let groups = cgroups.make(&id(), 1, &limits);
    println!("groups made here: {:?}; not enforced: {:?}", groups.folders, groups.not_enforced);
    let bounded = |what: &str| !groups.not_enforced.iter().any(|line| line.starts_with(what));
    if bounded("memory") {
        let mut greedy =
            shell(&groups, "exec head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null; exit 0");
        greedy.wait().unwrap();
        assert!(usage(&groups.folders).oom_kills > 0, "{:?}", usage(&groups.folders));
    }
    if bounded("processes") {
        let many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done 2>/dev/null; exit 0";
        let forked = shell(&groups, many).wait().unwrap();
        assert!(!forked.success(), "the ninth process was refused");
        assert!(usage(&groups.folders).processes > 0);
    }
    let name = format!("{}.a.g1", prefix(dir.path()));
    let counted = cgroups.processor_usec();
    println!("processor time counted here: {counted:?}");
    assert!(counted.iter().all(|(counted, _)| *counted == name));
    if cgroups.set_yielding(&name, true, &[]) {
        assert!(yields(&groups.folders) && cgroups.yielding().contains(&name));
        assert!(
            cgroups.set_yielding(&name, false, &[])
                && !yields(&groups.folders)
                && cgroups.yielding().is_empty()
        );
    }
    clear(&groups.folders, dir.path(), &id(), 1);
    assert!(groups.folders.iter().all(|folder| !folder.exists()), "what was left in them is ended");
}
