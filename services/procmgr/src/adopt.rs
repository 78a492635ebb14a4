//! Finding again what lives, after procmgr was killed at whichever step: each generation's folder is examined, and what can't
//! be proven ours is neither signalled nor adopted nor started a second time.
//!
//! ```text
//! lock free   no record, or an intent only            -> the start never happened
//!             exit record of the same nonce           -> ended, known how
//!             completed record                        -> lost: its shim was killed; leftovers provably ours are ended
//!             garbage                                 -> nothing lives; said so, nothing signalled
//! lock held   exit record of the same nonce           -> ended, the shim is on its way out
//!             record of this boot, the shim that it names lives, is the peer at the control socket
//!             and answers to the nonce                -> live
//!             anything else                           -> unproven
//! ```

use std::{
    collections::BTreeMap,
    fs, io, iter,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nexushub_chassis::launch::{clock::unix_ms, lock::Lock, secret};
use nexushub_shim::{
    control::{Reply, Request},
    exit::{self, End},
    identity::{self, Identity, Stat},
    record::{Process, Record},
    spawn::LOCK,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cgroup, control,
    driver::KRUN_PREFIX,
    exit::{Exit, How},
    generation::{self, Generation, Place},
    ids::InstanceId,
    kills,
    note::Note,
    overlap::Survivor,
    process,
    state::Found,
};

/// Longest wait for a shim to prove itself, and for a record that is being completed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a shim names itself.
const SHIM_COMM: &str = "nexushub-shim";

/// What is known of one generation from its folder.
#[derive(Debug)]
struct Facts {
    held: bool,
    record: Result<Option<Record>, String>,
    exit: Result<Option<exit::Exit>, String>,
}

/// Whether the holder of a lock is the shim of the record.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    /// It is, and its app runs or is being ended.
    Ours {
        /// It has been told to end its app.
        ending: bool,
    },
    /// It is, and its app has ended like this.
    Ended(Exit),
    /// It isn't, or can't be told.
    No(String),
}

/// What a generation is.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The start never happened.
    NeverStarted,
    /// It has ended.
    Ended(Exit),
    /// It was lost with its shim.
    Lost,
    /// It lives.
    Live {
        /// It has been told to end.
        ending: bool,
    },
    /// Something holds its lock and doesn't prove to be ours.
    Unproven(String),
    /// Nothing lives, but what is on disk makes no sense.
    Garbage(String),
}

/// The table above. `prove` is asked only where it says so.
fn classify(
    facts: &Facts,
    id: &InstanceId,
    number: u64,
    boot: &str,
    prove: impl FnOnce(&Record) -> Proof,
) -> Verdict {
    let bad = |why: String| if facts.held { Verdict::Unproven(why) } else { Verdict::Garbage(why) };
    let record = match &facts.record {
        Err(why) => return bad(format!("its record cannot be used: {why}")),
        Ok(None) if facts.held => {
            return Verdict::Unproven("its lock is held, but there is no record".into());
        }
        Ok(None) => return Verdict::NeverStarted,
        Ok(Some(record)) => record,
    };
    if record.instance != id.as_str() || record.generation != number {
        return bad(format!("its record is that of {} generation {}", record.instance, record.generation));
    }
    match &facts.exit {
        Ok(Some(exit)) if exit.nonce == record.nonce => return Verdict::Ended(exit.clone().into()),
        Ok(Some(_)) => {
            tracing::warn!(instance = %id, generation = number, "an exit record with a wrong nonce is ignored");
        }
        Err(error) => {
            tracing::warn!(instance = %id, generation = number, error, "its exit record is ignored");
        }
        Ok(None) => {}
    }
    match (facts.held, record.shim.is_some()) {
        (false, false) => Verdict::NeverStarted,
        (false, true) => Verdict::Lost,
        (true, _) if record.boot_id != boot => {
            Verdict::Unproven("its lock is held, but its record is of another boot".into())
        }
        (true, false) => {
            Verdict::Unproven("its lock is held, but its shim has not completed the record".into())
        }
        (true, true) => match prove(record) {
            Proof::Ours { ending } => Verdict::Live { ending },
            Proof::Ended(exit) => Verdict::Ended(exit),
            Proof::No(why) => Verdict::Unproven(why),
        },
    }
}

/// An end that its shim tells and the disk doesn't.
pub(crate) fn unrecorded(end: End) -> Exit {
    let unix_ms = unix_ms(SystemTime::now());
    exit::Exit { nonce: String::new(), end, unix_ms, reason: None }.into()
}

fn lost() -> Exit {
    let unix_ms = unix_ms(SystemTime::now());
    Exit { how: How::Lost, unix_ms, reason: None, out_of_memory: None, last_words: String::new() }
}

/// What an examination found, and the highest generation number there is.
#[derive(Debug)]
pub(crate) struct Examination {
    /// For the state machine.
    pub found: Found,
    /// What else of it lives.
    pub beside: Vec<Survivor>,
    /// Highest number.
    pub newest: u64,
}

/// Examines everything that an instance's folder holds. Blocks; `asking` runs the questions to shims.
pub(crate) fn examine(place: &Place, id: &InstanceId, asking: &tokio::runtime::Handle) -> Examination {
    let folder = place.instance(id);
    let mut numbers = match generation::numbers(&folder) {
        Ok(numbers) => numbers,
        Err(error) => {
            let found = Found::Unproven(format!("its folder {} cannot be read: {error}", folder.display()));
            return Examination { found, beside: Vec::new(), newest: 0 };
        }
    };
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let newest = numbers.first().copied().unwrap_or(0);
    let mut summary = Summary::default();
    for number in numbers {
        let dir = folder.join(format!("g{number}"));
        let facts = gather(&dir);
        let verdict =
            classify(&facts, id, number, &place.boot_id, |record| asking.block_on(prove(&dir, record)));
        let verdict = match verdict {
            Verdict::Ended(exit) => Verdict::Ended(accounted(&dir, exit)),
            other => other,
        };
        if !facts.held && matches!(verdict, Verdict::NeverStarted | Verdict::Ended(_)) {
            place.clear_cgroup(id, number, &dir);
        }
        summary.add(place, id, Examined { number, dir, facts, verdict });
    }
    let (found, beside) = summary.found();
    Examination { found, beside, newest }
}

/// One examined generation.
struct Examined {
    number: u64,
    dir: PathBuf,
    facts: Facts,
    verdict: Verdict,
}

/// A generation that lives.
struct Alive {
    run: Arc<Generation>,
    was_healthy: bool,
    ending: bool,
}

/// All generations of an instance, newest first.
#[derive(Default)]
struct Summary {
    alive: Vec<Alive>,
    unproven: Option<String>,
    last_exit: Option<Exit>,
}

impl Summary {
    fn add(&mut self, place: &Place, id: &InstanceId, one: Examined) {
        let number = one.number;
        match one.verdict {
            Verdict::NeverStarted => {}
            Verdict::Ended(exit) => drop(self.last_exit.get_or_insert(exit)),
            Verdict::Garbage(why) => {
                tracing::warn!(instance = %id, generation = number, error = why, "a generation on disk makes no sense; nothing is signalled");
            }
            Verdict::Lost => {
                if let Ok(Some(record)) = &one.facts.record {
                    let exit = settle_lost(place, id, &one.dir, record);
                    tracing::warn!(instance = %id, generation = number, "its shim was killed; how it ended is lost");
                    self.last_exit.get_or_insert(exit);
                }
            }
            Verdict::Unproven(why) => {
                tracing::error!(instance = %id, generation = number, error = why, "a held lock is not provably ours; it is left alone");
                self.unproven.get_or_insert(format!(
                    "generation {number} is not provably ours and is left alone: {why}"
                ));
            }
            Verdict::Live { ending } => self.alive(id, one, ending),
        }
    }

    fn alive(&mut self, id: &InstanceId, one: Examined, ending: bool) {
        let Ok(Some(record)) = one.facts.record else { return };
        let note = Note::read(&one.dir).unwrap_or_else(|error| {
            tracing::warn!(instance = %id, generation = one.number, error = %error, "its note is lost; it will be replaced");
            Note::default()
        });
        cgroup::bound_processor(&note.folders(), note.limits.cpu_percent);
        let was_healthy = generation::was_healthy(&one.dir);
        match Generation::new(id, &one.dir, record, note) {
            Some(run) => self.alive.push(Alive { run: run.into(), was_healthy, ending }),
            None => drop(
                self.unproven
                    .get_or_insert("it lives, and its driver and its port do not go together".into()),
            ),
        }
    }

    /// The generation that counts, and what else lives. What killed procmgr may have come between any two steps of a switch:
    /// the newest that has answered counts, and where none has, the newest.
    fn found(mut self) -> (Found, Vec<Survivor>) {
        let counts = |test: fn(&Alive) -> bool| self.alive.iter().position(test);
        let best = counts(|one| one.was_healthy && !one.ending).or_else(|| counts(|one| !one.ending));
        let found = match (best.or((!self.alive.is_empty()).then_some(0)), self.unproven) {
            (Some(at), _) => {
                let Alive { run, was_healthy, ending } = self.alive.remove(at);
                Found::Live { run, was_healthy, ending }
            }
            (None, Some(why)) => Found::Unproven(why),
            (None, None) => Found::Nothing(self.last_exit),
        };
        let survivor = |Alive { run, ending, .. }| Survivor { run, ending };
        (found, self.alive.into_iter().map(survivor).collect())
    }
}

/// Reads a folder. While its lock is held by a shim that is just being started, waits for the record to be completed.
fn gather(dir: &Path) -> Facts {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        // The lock first: what is read after it was found free is final.
        let held = !matches!(Lock::try_acquire(&dir.join(LOCK)), Ok(Some(_)));
        let record = Record::read(dir).map_err(|error| error.to_string());
        let exit = exit::Exit::read(dir).map_err(|error| error.to_string());
        let underway =
            held && matches!(&record, Ok(Some(record)) if record.shim.is_none()) && matches!(exit, Ok(None));
        if !underway || std::time::Instant::now() >= deadline {
            return Facts { held, record, exit };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has the shim of a record prove itself: its process is the recorded one, it is the peer at the socket, it knows the nonce.
async fn prove(dir: &Path, record: &Record) -> Proof {
    match identity::verify(record) {
        Ok(Identity::Alive) => {}
        Ok(other) => return Proof::No(format!("its lock is held, but its shim is {other:?}").to_lowercase()),
        Err(error) => return Proof::No(format!("its shim cannot be looked at: {error}")),
    }
    let answer = match control::ask(dir, &record.nonce, Request::Status, Some(PATIENCE)).await {
        Ok(answer) => answer,
        Err(error) => return Proof::No(format!("its shim does not prove itself: {error}")),
    };
    if record.shim.is_none_or(|shim| shim.pid != answer.peer) {
        return Proof::No(format!("process {} answers in place of its shim", answer.peer));
    }
    match answer.reply {
        Reply::Running(app) if Some(app) == record.app => Proof::Ours { ending: false },
        Reply::Running(app) => {
            Proof::No(format!("its shim runs process {}, which is not in the record", app.pid))
        }
        Reply::Stopping => Proof::Ours { ending: true },
        // On disk by now, though it was not when its folder was read.
        Reply::Exited(end) => Proof::Ended(match exit::Exit::read(dir) {
            Ok(Some(exit)) if exit.nonce == record.nonce => exit.into(),
            _ => unrecorded(end),
        }),
        Reply::Refused | Reply::Malformed => {
            Proof::No("its shim does not know the nonce of the record".into())
        }
        other @ (Reply::Connected | Reply::Listening | Reply::Failed(_)) => {
            Proof::No(format!("its shim answers `{other}` to another question"))
        }
    }
}

/// How a generation ended whose shim no longer answers. `None` while something holds its lock, and whenever that, or what it
/// left, can't be told: then it counts as alive, and the question is asked again. Blocks.
pub(crate) fn aftermath(place: &Place, run: &Generation) -> Option<Exit> {
    let _lock = match Lock::acquire_within(&run.dir.join(LOCK), PATIENCE) {
        Ok(Some(lock)) => lock,
        // Its folder was taken away: then only the shim's own process can tell.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return is_gone(run.shim).then(lost),
        Ok(None) | Err(_) => return None,
    };
    if let Some(exit) = recorded(run).ok()? {
        return Some(exit);
    }
    match sensible(Record::read(&run.dir)).ok()? {
        Some(record) if record.nonce == run.nonce => {
            Some(settle_lost(place, &run.instance, &run.dir, &record))
        }
        _ => Some(lost()),
    }
}

/// The exit record of a generation, if it has one. An error: that can't be told now.
pub(crate) fn recorded(run: &Generation) -> io::Result<Option<Exit>> {
    let exit = sensible(exit::Exit::read(&run.dir))?;
    let exit = exit.filter(|exit| exit.nonce == run.nonce).map(Exit::from);
    Ok(exit.map(|exit| accounted(&run.dir, exit)))
}

/// An end of a generation, and whether the kernel killed some of it at the bound on its memory shortly before. Its cgroups have
/// to be there still.
pub(crate) fn accounted(dir: &Path, exit: Exit) -> Exit {
    let Ok(note) = Note::read(dir) else { return exit };
    let starved = kills::lately(dir, &note.folders());
    Exit { out_of_memory: starved.then_some(note.limits.memory_bytes).filter(|bound| *bound > 0), ..exit }
}

/// What makes no sense says nothing, now or later; what can't be read now may say something later, and stays an error.
fn sensible<T>(read: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        other => other,
    }
}

/// Whether a process is certain to have ended.
fn is_gone(process: Process) -> bool {
    match Stat::of(process.pid) {
        Ok(stat) => stat.start != process.start || stat.is_dead(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Writes down that a generation was lost with its shim, and ends what it left behind as far as that is provably its own.
fn settle_lost(place: &Place, id: &InstanceId, dir: &Path, record: &Record) -> Exit {
    let exit = accounted(dir, lost());
    let note = Note::read(dir).unwrap_or_default();
    if record.boot_id == place.boot_id {
        for pid in leftovers(record, &note) {
            tracing::warn!(instance = %id, generation = record.generation, pid, "a process that a killed shim left behind is ended");
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        place.clear_cgroup(id, record.generation, dir);
    }
    let ending =
        exit::Exit { nonce: record.nonce.clone(), end: End::Lost, unix_ms: exit.unix_ms, reason: None };
    if let Err(error) = ending.write(dir) {
        tracing::warn!(instance = %id, generation = record.generation, error = %error, "could not record that its exit is lost");
    }
    exit
}

/// Processes younger than a dead shim that carry the instance's own secret, whatever session they moved to: nobody else's can.
/// What descends from a shim that lives is that shim's.
fn leftovers(record: &Record, note: &Note) -> Vec<u32> {
    let Some(shim) = record.shim else { return Vec::new() };
    let all = process::all();
    let parents: BTreeMap<u32, u32> = all.iter().map(|(pid, stat)| (*pid, stat.parent)).collect();
    let young = all.iter().filter(|(_, stat)| stat.start >= shim.start && !stat.is_dead());
    young
        .map(|(pid, _)| *pid)
        .filter(|pid| carries_secret(*pid, &note.secret_sha256).unwrap_or(false))
        .filter(|pid| !below_a_shim(*pid, &parents))
        .collect()
}

fn below_a_shim(pid: u32, parents: &BTreeMap<u32, u32>) -> bool {
    let ancestors = iter::successors(parents.get(&pid).copied(), |pid| parents.get(pid).copied());
    ancestors.take(parents.len()).any(|pid| {
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_ascii() == SHIM_COMM.as_bytes())
    })
}

fn carries_secret(pid: u32, sha256: &str) -> io::Result<bool> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let value = |entry: &[u8]| {
        // The program around a microVM has its app's variables under other names.
        let entry = entry.strip_prefix(KRUN_PREFIX.as_bytes()).unwrap_or(entry);
        str::from_utf8(entry.strip_prefix(b"INTERNAL_SECRET=")?).ok().map(str::to_owned)
    };
    let own = environment.split(|byte| *byte == 0).find_map(value);
    Ok(own.is_some_and(|value| secret::hex(&secret::digest(&value)) == sha256))
}

#[cfg(test)]
mod tests;
