//! Which processes belong to a generation: the members of its shim's session and all that descends from the shim. The shim is
//! a subreaper, so whatever the app starts stays below it for as long as it lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
};

use nexushub_shim::{
    identity::{self, Stat},
    record::Process,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

/// Every process that can be seen.
pub(crate) fn all() -> Vec<(u32, Stat)> {
    identity::processes().map(Iterator::collect).unwrap_or_default()
}

/// Everything that belongs to the generation of a shim.
pub(crate) fn family(all: &[(u32, Stat)], shim: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in all {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut family: BTreeSet<u32> =
        all.iter().filter(|(_, stat)| stat.session == shim).map(|(pid, _)| *pid).collect();
    family.insert(shim);
    let mut queue: Vec<u32> = family.iter().copied().collect();
    while let Some(pid) = queue.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if family.insert(*child) {
                queue.push(*child);
            }
        }
    }
    family
}

/// A process that is readable once it has ended; none of that number that nobody waits for any more.
pub(crate) fn hold(pid: u32) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(held)) => Ok(Some(held)),
        Some(Err(rustix::io::Errno::SRCH)) | None => Ok(None),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Returns when this very process has ended.
pub(crate) async fn ended(process: Process) -> io::Result<()> {
    let Some(held) = hold(process.pid)? else { return Ok(()) };
    // Held from here on; that it is the one that is meant, its start time says.
    if Stat::of(process.pid).is_ok_and(|stat| stat.start == process.start) {
        // Deprecated for types whose descriptor may change or close while registered: this one's can't, it is owned.
        #[allow(deprecated)]
        let held = AsyncFd::new(held)?;
        let _ = held.readable().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_awaited_and_another_of_its_number_is_not() {
        let mut child = tokio::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pid = child.id().unwrap();
        let start = Stat::of(pid).unwrap().start;
        ended(Process { pid, start: start - 1 }).await.unwrap();
        let mut end = std::pin::pin!(ended(Process { pid, start }));
        tokio::select! {
            biased;
            _ = &mut end => unreachable!("it lives"),
            () = std::future::ready(()) => {}
        }
        child.kill().await.unwrap();
        end.await.unwrap();
        ended(Process { pid, start }).await.unwrap();
    }

    fn process(pid: u32, parent: u32, session: u32) -> (u32, Stat) {
        (pid, Stat { state: b'S', parent, group: session, session, start: 1 })
    }

    #[test]
    fn a_family_is_the_session_and_every_descendant() {
        let all = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
            process(13, 12, 12),
            process(20, 1, 10),
            process(30, 1, 30),
        ];
        assert_eq!(family(&all, 10).into_iter().collect::<Vec<_>>(), [10, 11, 12, 13, 20]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        assert!(all().iter().any(|(pid, _)| *pid == std::process::id()));
    }
}
