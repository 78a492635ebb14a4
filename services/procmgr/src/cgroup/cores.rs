//! Which cores a group may use. A box that yields is kept to as many as its bound on processor time comes to. On all of them it would
//! be stopped at its bound and let go again on each, ten times a second; and who wakes up would meet it on any, inside the kernel,
//! where nothing takes over from it (a fork, a write).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a group may use, of either version.
const OWN: &str = "cpuset.cpus";
/// What that comes to.
const EFFECTIVE: [&str; 2] = ["cpuset.cpus.effective", "cpuset.effective_cpus"];
/// What a group of the older version must be given before it takes a process, and where its parent has that.
const INHERITED: [(&str, &str); 2] = [(OWN, EFFECTIVE[1]), ("cpuset.mems", "cpuset.effective_mems")];
/// A bound on processor time: quota and period.
const BOUND: &str = "cpu.max";
const OLDER_BOUND: [&str; 2] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"];

/// Gives a group of the older version all that its parent has. One of the unified hierarchy has that by itself.
pub(super) fn inherit(folder: &Path) -> io::Result<()> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    for (own, parents) in INHERITED {
        match fs::read(parent.join(parents)) {
            Ok(all) => fs::write(folder.join(own), all)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets what is in the groups of a generation use all cores again, where they are bounded. They are named: older kernels don't let
/// a group that holds processes go back to having none of its own, in either version (ENOSPC; Linux 6.1).
pub(super) fn free(folders: &[PathBuf]) -> io::Result<()> {
    let Some(folder) = bounding(folders) else { return Ok(()) };
    let all = folder.parent().map(effective).unwrap_or_default();
    fs::write(folder.join(OWN), list(&all))
}

/// Keeps what is in the groups of a generation to as many cores as its bound on processor time comes to: those that fewest of these
/// others are kept to. Without a bound, or one of all cores, it keeps them all.
pub(super) fn keep(folders: &[PathBuf], others: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    let (Some(folder), Some(wanted)) = (bounding(folders), wanted(folders)) else { return Ok(()) };
    let all = folder.parent().map(effective).unwrap_or_default();
    if wanted >= all.len() {
        return Ok(());
    }
    let taken: Vec<u32> = others.flat_map(|other| read(&other.join(OWN))).collect();
    fs::write(folder.join(OWN), list(&fewest(all, &taken, wanted)))
}

fn bounding(folders: &[PathBuf]) -> Option<&PathBuf> {
    folders.iter().find(|folder| folder.join(OWN).exists())
}

fn effective(folder: &Path) -> Vec<u32> {
    EFFECTIVE.iter().flat_map(|file| read(&folder.join(file))).collect()
}

/// Whole cores that a bound on processor time comes to.
fn wanted(folders: &[PathBuf]) -> Option<usize> {
    let bound = folders.iter().find_map(|folder| {
        let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
        text(BOUND).or_else(|| Some(format!("{} {}", text(OLDER_BOUND[0])?.trim(), text(OLDER_BOUND[1])?)))
    })?;
    let mut numbers = bound.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(quota)), Some(Ok(period))) = (numbers.next(), numbers.next()) else { return None }; // `max` or -1: none
    usize::try_from(quota.div_ceil(period.max(1))).ok()
}

/// So many of them that are taken least often; of those taken alike the last, as interrupts come to the first.
fn fewest(mut cores: Vec<u32>, taken: &[u32], wanted: usize) -> Vec<u32> {
    cores.sort_by_key(|core| (taken.iter().filter(|taken| *taken == core).count(), u32::MAX - core));
    cores.truncate(wanted);
    cores
}

fn read(file: &Path) -> Vec<u32> {
    fs::read_to_string(file).map(|text| parse(&text)).unwrap_or_default()
}

fn list(cores: &[u32]) -> String {
    cores.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The kernel's way to write a list: `0-2,7`.
fn parse(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse("0-2,7,9-10\n"), [0, 1, 2, 7, 9, 10]);
        assert_eq!(parse("\n"), [0; 0]);
        assert_eq!(parse("3-1,x,1-"), [0; 0]);
    }

    #[test]
    fn who_yields_gets_the_cores_that_fewest_are_kept_to() {
        let cores = || vec![0, 1, 2, 3];
        assert_eq!(fewest(cores(), &[], 1), [3]);
        assert_eq!(fewest(cores(), &[3, 2, 3], 2), [1, 0]);
        assert_eq!(fewest(cores(), &[0, 1, 2, 3, 3], 2), [2, 1]);
    }

    /// A group below one with these cores, and with this bound, as either version shows it.
    fn group(unified: bool, cores: &str, bound: &str) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let own = parent.path().join("own");
        fs::create_dir(&own).unwrap();
        let write = |file: &str, text: &str| fs::write(parent.path().join(file), text).unwrap();
        if unified {
            write("cpuset.cpus.effective", cores);
            write("own/cpuset.cpus.effective", cores);
            write("own/cpu.max", bound);
        } else {
            write("cpuset.effective_cpus", cores);
            write("cpuset.effective_mems", "0");
            let (quota, period) = bound.split_once(' ').unwrap();
            write("own/cpu.cfs_quota_us", quota);
            write("own/cpu.cfs_period_us", period);
        }
        write("own/cpuset.cpus", "\n");
        (parent, own)
    }

    #[test]
    fn it_is_kept_to_what_its_bound_comes_to_and_freed_in_either_version() {
        for unified in [true, false] {
            let (_parent, own) = group(unified, "0-3\n", "110000 100000\n");
            let (_other, other) = group(unified, "0-3\n", "110000 100000\n");
            fs::write(other.join(OWN), "3").unwrap();
            let (folders, is) = ([own.clone()], || fs::read_to_string(own.join(OWN)).unwrap());
            keep(&folders, std::iter::once(other.clone())).unwrap();
            assert_eq!(is(), "2,1");
            free(&folders).unwrap();
            assert_eq!(is(), "0,1,2,3");
        }
    }

    #[test]
    fn it_keeps_all_where_its_bound_leaves_them_or_there_is_none() {
        for bound in ["200000 100000", "max 100000", "-1 100000"] {
            for unified in [true, false] {
                let (_parent, own) = group(unified, "0-1", bound);
                keep(std::slice::from_ref(&own), std::iter::empty()).unwrap();
                assert_eq!(fs::read_to_string(own.join(OWN)).unwrap(), "\n", "{bound}");
            }
        }
        keep(&[], std::iter::empty()).unwrap();
        free(&[]).unwrap();
    }

    #[test]
    fn a_new_group_of_the_older_version_gets_what_its_parent_has() {
        let (_parent, own) = group(false, "0-1\n", "-1 100000");
        inherit(&own).unwrap();
        let is = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        assert_eq!((is(OWN), is("cpuset.mems")), ("0-1\n".to_owned(), "0".to_owned()));
    }
}
