//! The ids that an ordinary user may give to its boxes: those of `/etc/subuid` and `/etc/subgid`, which the system's set-uid programs
//! `newuidmap` and `newgidmap` map into a user namespace of that user.
//!
//! ```text
//! this ── user namespace ──► the user's own id and all of its ranges, each as itself
//!  ├─ starts ─► nexushub-sandbox --map: stays outside ─► newuidmap, newgidmap
//!  └─ box ── user namespace ──► 1000: one id of the ranges, and nothing else
//! ```
//! Invariant: the programs are started outside of that namespace and before privileges are renounced, which set-uid programs need,
//! by paths that only root can write to, and with nothing of anybody's environment.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio, id};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::report::{Because as _, Reason};

/// Where the system's programs are.
const PLACES: [&str; 2] = ["/usr/bin", "/bin"];
/// How long one may take. It asks for the user by name, and whoever keeps the names may be away.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel takes 340; nobody has so many.
const RANGES: usize = 64;

/// Some ids, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

impl Range {
    fn last(self) -> u32 {
        self.first + (self.count - 1)
    }

    fn meets(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

/// Ids of one kind: the user's own and those that it may give away.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    own: u32,
    ranges: Vec<Range>,
}

impl Kind {
    /// From the text of such a file: `name or number:first:count`, a line for each range. Lines of others, those that are
    /// malformed, and ranges that hold root's id, the user's own or an earlier one's are passed over.
    fn parse(text: &str, user: &User, own: u32) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for range in text.lines().filter_map(|line| of_line(line, user)) {
            let taken = Range { first: own, count: 1 }.meets(range) || range.first == 0;
            if ranges.len() < RANGES && !taken && !ranges.iter().any(|earlier| earlier.meets(range)) {
                ranges.push(range);
            }
        }
        Self { own, ranges }
    }

    /// Of the user that runs this.
    fn of_file(path: &str, user: &User, own: u32) -> Result<Self, Reason> {
        let text = fs::read(path).because(|| format!("read {path}"))?;
        let kind = Self::parse(&String::from_utf8_lossy(&text), user, own);
        match kind.ranges.is_empty() {
            true => Err(Reason::new(format_args!(
                "{path} has no ids for {}",
                user.name.as_deref().unwrap_or("this user")
            ))),
            false => Ok(kind),
        }
    }

    fn count(&self) -> u32 {
        self.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.count))
    }

    /// The id of a slot. Each range is given from its end, since containers of the same user take it from its beginning; a range
    /// that is added later changes no earlier slot.
    fn of_slot(&self, slot: u32) -> Option<u32> {
        let mut left = slot;
        for range in &self.ranges {
            if left < range.count {
                return Some(range.last() - left);
            }
            left -= range.count;
        }
        None
    }

    /// What `newuidmap` is told after the process: inside, outside and count of each range.
    fn words(&self) -> impl Iterator<Item = String> {
        let own = Range { first: self.own, count: 1 };
        let each = |range: &Range| [range.first, range.first, range.count].map(|number| number.to_string());
        [own].iter().chain(&self.ranges).flat_map(each).collect::<Vec<_>>().into_iter()
    }
}

/// Whose lines count.
struct User {
    uid: u32,
    name: Option<String>,
}

impl User {
    fn this() -> Self {
        let uid = geteuid().as_raw();
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        Self { uid, name: name_of(&String::from_utf8_lossy(&passwd), uid) }
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

fn of_line(line: &str, user: &User) -> Option<Range> {
    let mut fields = line.trim().split(':');
    let (who, first, count) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || !(Some(who) == user.name.as_deref() || who.parse() == Ok(user.uid)) {
        return None;
    }
    let (first, count) = (first.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
    // The last id of all is none.
    let end = first.checked_add(count)?;
    (count > 0 && end < u32::MAX).then_some(Range { first, count })
}

fn kinds() -> Result<[Kind; 2], Reason> {
    let user = User::this();
    Ok([
        Kind::of_file("/etc/subuid", &user, geteuid().as_raw())?,
        Kind::of_file("/etc/subgid", &user, getegid().as_raw())?,
    ])
}

/// How many boxes can have ids of their own.
pub(crate) fn slots() -> Result<u32, Reason> {
    kinds().map(|[users, groups]| users.count().min(groups.count()))
}

/// User and group of the box that has this slot.
pub(crate) fn of_slot(slot: u32) -> Result<(u32, u32), Reason> {
    let [users, groups] = kinds()?;
    let ids = users.of_slot(slot).zip(groups.of_slot(slot));
    ids.ok_or_else(|| Reason::new(format_args!("/etc/subuid and /etc/subgid have no ids for slot {slot}")))
}

/// Moves this process into a user namespace in which it has every right over the user's own id and all that it may give away.
///
/// # Errors
/// When there are none, or the system's programs refuse or aren't there.
pub(crate) fn enter() -> Result<(), Reason> {
    let mut outside = Command::new("/proc/self/exe");
    outside.arg("--map").arg(id().to_string()).env_clear();
    outside.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut outside = outside.spawn().because(|| "start what maps its ids")?;
    unshare(CloneFlags::CLONE_NEWUSER).because(|| "make a user namespace")?;
    // Who is gone already tells why.
    let _ = outside.stdin.take().map(|mut gate| gate.write_all(b"."));
    let output = outside.wait_with_output().because(|| "wait for its ids")?;
    if output.status.success() { Ok(()) } else { Err(said(&output.stderr)) }
}

/// Maps the ids of a process that waits for it in a user namespace of its own: once a byte comes by standard input.
///
/// # Errors
/// When who waits is gone, there are no such ids, or the system's programs refuse or aren't there.
pub fn map(process: u32) -> Result<(), Reason> {
    if io::stdin().read(&mut [0]).because(|| "wait for the process to map")? == 0 {
        return Err(Reason::new("the process to map is gone"));
    }
    let [users, groups] = kinds()?;
    run(&tool("newuidmap")?, process, &users, PATIENCE)?;
    run(&tool("newgidmap")?, process, &groups, PATIENCE)
}

fn tool(name: &str) -> Result<PathBuf, Reason> {
    let mut places = PLACES.iter().map(|place| Path::new(place).join(name));
    places
        .find(|path| path.is_file())
        .ok_or_else(|| Reason::new(format_args!("there is no {name}: install the package uidmap")))
}

fn run(tool: &Path, process: u32, kind: &Kind, patience: Duration) -> Result<(), Reason> {
    let what = || format!("run {}", tool.display());
    let mut command = Command::new(tool);
    command.arg(process.to_string()).args(kind.words()).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().because(what)?;
    let text = running.stderr.take().map_or(Ok(Vec::new()), |stderr| read_all(stderr, patience));
    if text.is_err() {
        let _ = running.kill(); // set-uid or not, it is this user who runs it
    }
    let status = running.wait().because(what)?;
    let text = text.because(what)?;
    if status.success() { Ok(()) } else { Err(said(&text)) }
}

/// What comes until it ends, or an error if that takes longer.
fn read_all(mut from: ChildStderr, patience: Duration) -> io::Result<Vec<u8>> {
    let (deadline, mut all, mut piece) = (Instant::now() + patience, Vec::new(), [0; 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end")),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        match from.read(&mut piece)? {
            0 => return Ok(all),
            length => all.extend_from_slice(&piece[..length]),
        }
    }
}

fn said(stderr: &[u8]) -> Reason {
    let text = String::from_utf8_lossy(stderr);
    Reason::new(text.lines().next().unwrap_or("its ids could not be mapped"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kind(text: &str) -> Kind {
        Kind::parse(text, &User { uid: 1000, name: Some("ann".into()) }, 1000)
    }

    fn found(text: &str) -> Vec<(u32, u32)> {
        kind(text).ranges.iter().map(|range| (range.first, range.count)).collect()
    }

    #[test]
    fn lines_count_by_name_or_number_and_those_of_others_do_not() {
        assert_eq!(
            found("bob:100000:65536\nann:165536:65536\n1000:300000:10\n1001:400000:1\nanna:5000000:7"),
            [(165_536, 65_536), (300_000, 10)]
        );
        let nameless = User { uid: 7, name: None };
        assert_eq!(Kind::parse(":1:5\n7:100:5", &nameless, 7).ranges, [Range { first: 100, count: 5 }]);
    }

    #[test]
    fn what_is_malformed_or_would_give_away_who_is_somebody_already_is_passed_over() {
        for line in [
            "",
            "ann",
            "ann:1",
            "ann:100000:",
            "ann::5",
            "ann:x:5",
            "ann:100000:-1",
            "ann:100000:0",
            "ann:1:2:3",
            "ann:0:65536",
            "ann:900:101",
            "ann:4294967290:5",
            "ann:4294967295:1",
            "ann:99999999999:1",
            "#ann:1:1",
        ] {
            assert_eq!(found(line), [], "{line}");
        }
        assert_eq!(found("ann:4294967290:4"), [(4_294_967_290, 4)]);
        assert_eq!(found("ann:2000:10\nann:2009:5\nann:2010:1\r\n"), [(2000, 10), (2010, 1)]);
        let many: String = (0..100).map(|n| format!("ann:{}:1\n", 10_000 + n)).collect();
        assert_eq!(found(&many).len(), RANGES);
    }

    #[test]
    fn slots_count_from_the_end_of_each_range_and_stay_when_another_is_added() {
        let (one, two) = (kind("ann:100000:3"), kind("ann:100000:3\nann:5000:2"));
        assert_eq!((one.count(), two.count()), (3, 5));
        let ids = |kind: &Kind| (0..6).map_while(|slot| kind.of_slot(slot)).collect::<Vec<_>>();
        assert_eq!(ids(&one), [100_002, 100_001, 100_000]);
        assert_eq!(ids(&two), [100_002, 100_001, 100_000, 5001, 5000]);
    }

    #[test]
    fn the_programs_are_told_the_users_own_id_and_every_range_as_itself() {
        let words: Vec<_> = kind("ann:100000:3\nann:5000:2").words().collect();
        assert_eq!(words.join(" "), "1000 1000 1 100000 100000 3 5000 5000 2");
    }

    #[test]
    fn a_program_that_refuses_is_quoted_and_one_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let said = |script: &str, patience| {
            let path = folder.path().join("newuidmap");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            run(&path, 1, &kind("ann:100000:3"), patience).map_err(|reason| reason.to_string())
        };
        assert_eq!(said("[ \"$*\" = '1 1000 1000 1 100000 100000 3' ]", PATIENCE), Ok(()));
        assert_eq!(
            said("echo 'not allowed' >&2; echo more >&2; exit 1", PATIENCE),
            Err("not allowed".into())
        );
        let late = said("exec tail -f /dev/null", Duration::ZERO).unwrap_err();
        assert!(late.ends_with("newuidmap: it does not end"), "{late}");
    }

    #[test]
    fn a_user_is_named_by_the_first_line_of_its_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nbroken\nann:x:1000:1000::/:/bin/sh\nalso:x:1000:1::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!((name_of(passwd, 1), name_of(":x:1:1", 1)), (None, None));
    }
}
