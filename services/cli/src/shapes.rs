//! The shapes of what programs are told (`-o json`), as the help has them: each field by its path, with what it says. Fields are only
//! ever added. Beside each answer a test holds it against what is said here.

/// `status`
pub(crate) const STATUS: &str = "\
As JSON an object; fields are only ever added:
  version                               1
  form                                  who runs the daemons: supervisor, units, down; or elsewhere
  run                                   the run folder; elsewhere empty
  state                                 the state folder; elsewhere empty
  well                                  whether all that should run does, as the exit code says
  daemons[].name                        of those on this machine
  daemons[].state                       ready, starting, waiting, ...
  daemons[].pid                         null = there is no process
  daemons[].since_unix_ms               since when it is so
  daemons[].restarts                    how often it was started again
  daemons[].status                      what it says of itself
  daemons[].reason                      why it is not ready; empty when it is
  instances[].id                        each app that runs, or should
  instances[].app_id
  instances[].host_name
  instances[].url
  instances[].state                     starting, running, unhealthy, stopping, stopped, failed, asleep, unknown, no package yet
  instances[].reason                    why it does not run, or what is odd about it; may be empty
  instances[].last_words                what it said last where it failed; absent otherwise
  instances[].pid                       null = there is no process
  instances[].since_unix_ms
  instances[].generation                which start of it this is
  instances[].restarts                  since it ran stably
  instances[].driver                    what its box is
  instances[].not_enforced[]            what of its isolation this machine does not enforce
  instances[].memory_bytes              null where nothing counts it; so the next three
  instances[].cpu_usec
  instances[].data_bytes
  instances[].log_bytes
  instances[].usage.memory_bytes        what it uses of its limits and how it felt them, where that is counted; 0 = not counted, not bounded
  instances[].usage.memory_peak_bytes
  instances[].usage.memory_limit_bytes
  instances[].usage.cpu_usec
  instances[].usage.cpu_limit_percent   of a core
  instances[].usage.throttled_usec      how long its bound held it back
  instances[].usage.processes
  instances[].usage.processes_limit
  instances[].usage.refused_processes   how often it was refused one more
  instances[].usage.yields              whether it keeps a processor busy and gets what nobody else wants until it takes less
  instances[].usage.oom_kills           of its processes, for want of memory
  instances[].usage.data_bytes
  instances[].usage.data_limit_bytes
  instances[].usage.log_bytes           disk that its log takes, of all its starts
  instances[].usage.log_limit_bytes
  instances[].routed                    whether requests reach it
  apps[].id                             what was pushed, also what is stopped
  apps[].app_id
  apps[].host_name
  apps[].status                         pending, installed, running, asleep, stopped, failed
  apps[].created_unix_ms
  conflicts[].id                        entries that lost against others
  conflicts[].origin                    pushed, configured, admin
  conflicts[].reason
  held                                  instances that are held back, see `nexushub plan`
  admin_trouble                         why the admin app can't be heard; empty = it can, or is not followed
  auto.driver                           what the driver auto means on this machine: krun or sandbox; empty = neither, or not known yet
  auto.reason                           why it is none, or none better
  unknown[]                             what could not be asked";

/// `apps`
pub(crate) const APPS: &str = "\
As JSON an object; fields are only ever added:
  version                 1
  apps[].id
  apps[].app_id
  apps[].display_name
  apps[].host_name
  apps[].url
  apps[].state            as of `status`; of what was pushed and does not run: pending, installed, stopped, failed
  apps[].reason           may be empty
  apps[].origin           pushed, configured, admin; empty = nobody asks for it
  apps[].driver           what its box is
  apps[].release          the folder of its package
  apps[].package_version  what its manifest says; may be empty
  apps[].generation       which start of it this is
  apps[].since_unix_ms
  apps[].paused
  apps[].memory_bytes     null where nothing counts it; so the next
  apps[].data_bytes";

/// `releases`
pub(crate) const RELEASES: &str = "\
As JSON an object; fields are only ever added:
  version                  1
  releases[].id            what `rollback` takes; the current one first, then the latest
  releases[].name          what its manifest says; absent if nothing, so the next
  releases[].version
  releases[].sha256        of its archive; absent where nobody knows it
  releases[].installed_at  RFC 3339
  releases[].state         current, earlier
  releases[].healthy       whether it ever answered its health check";

/// `events`
pub(crate) const EVENTS: &str = "\
As JSON a line for each, an object; fields are only ever added:
  version     1
  ts          RFC 3339
  kind        app, daemon
  name        app id, or the daemon's name
  id          the instance's; a daemon's is its name
  was         its state before; empty = it was not there, or not known yet
  state       gone = it is not there any more
  generation  which start of it this is; of daemons how often it was restarted
  reason      may be empty";

/// `logs`
pub(crate) const LOGS: &str = "\
As JSON a line for each, an object as debug-api sends it, which bears no version; fields are only ever added:
  ts          RFC 3339
  time        the same
  instance    the app's id
  release     which release said it
  stream      stdout, stderr, system
  level       trace, debug, info, warn, error, fatal: what it counts as
  msg         the line
  text        the same
  partial     true if it is so long that it goes on in the next; absent otherwise
  cursor      where it stands
  generation  which start of the app said it
  pid         which process
Where lines are missing there is an object with `event` = gap and `lost`, how many (0 = nobody knows).
What a daemon said is its own JSON line, as it wrote it.";

/// `audit`
pub(crate) const AUDIT: &str = "\
As JSON a line for each, an object; fields are only ever added:
  version  1
  ts       RFC 3339
  daemon   who noted it
  who      who did it
  what     such as application.install
  object   to what; may be empty
  from     from where; may be empty
  result   ok, refused, failed
  detail   what else there is to say; may be empty
  prev     the digest of the entry before it";

/// `audit verify`
pub(crate) const VERIFY: &str = "\
As JSON an object; fields are only ever added:
  version             1
  well                whether all are what was written, as the exit code says
  logs[].daemon       whose it is
  logs[].entries      how many follow each other
  logs[].last         the digest of the last of them
  logs[].from_start   whether the first one ever is there
  logs[].torn         bytes of a last line that is not finished
  logs[].broken       null = it is what was written; else where it is not
  logs[].broken.file
  logs[].broken.line  from 1 on
  logs[].broken.why";

/// `doctor`
pub(crate) const DOCTOR: &str = "\
As JSON an object; fields are only ever added:
  version             1
  well                whether nothing keeps apps from running, as the exit code says
  findings[].what     what was looked at
  findings[].verdict  ok, note, bad
  findings[].says     how it is
  findings[].next     what to do; empty = nothing";

/// `plan`
pub(crate) const PLAN: &str = "\
As JSON an object; fields are only ever added:
  version                            1
  followed                           whether the admin app is asked
  trouble                            why it can't be heard; empty = it can
  heard_unix_ms                      when it last was; 0 = not yet
  listed                             instances in its last list
  held[].id                          kept although it no longer lists them
  held[].app_id
  held[].host_name
  waiting[].id                       instances whose application has no package yet
  waiting[].app_id
  waiting[].host_name
  conflicts[]                        what lost against another, for people
  refused[]                          what of the list was left out, for people
  configuration.file                 what would be taken up; null = the defaults
  configuration.instances[].id       what would not be as it is
  configuration.instances[].app_id
  configuration.instances[].host_name
  configuration.instances[].change   added, removed, restarted, changed
  configuration.instances[].keys[]   what differs of one that was there and stays
  configuration.conflicts[]          what would lose against another, and does not now, for people
  configuration.settings[].key       `settings` is null where nobody knows what the daemons were started with
  configuration.settings[].was       null = it is not said, so the default; so the next
  configuration.settings[].is
  configuration.settings[].taken_up  daemons (each reader's next process), supervisor, or platform: stopped and started
  configuration.daemons[]            those that are replaced
  configuration.executables[]        daemons of which there is another executable than they were started from";

/// `check`
pub(crate) const CHECK: &str = "\
As JSON an object; fields are only ever added:
  version           1
  file              the configuration; null = the defaults
  well              whether it can be used, as the exit code says
  daemons[].name
  daemons[].well    whether it takes its part
  daemons[].object  what is wrong; empty if nothing is, so the next two
  daemons[].says    how it is wrong
  daemons[].next    what to do; may be empty";

/// `config show`
pub(crate) const CONFIG: &str = "\
As JSON an object; fields are only ever added:
  version  1
  file     null = the defaults
  root     the folder that paths begin at
  tables   every table by its name, each with all its keys; `config schema` describes them";

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::panic)]
    use std::collections::BTreeSet;

    use serde::Serialize;
    use serde_json::Value;

    /// The paths that a text tells of.
    fn told(text: &str) -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
        lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// The paths that there are: of what is one thing, and of what may be none.
    fn found(at: &str, value: &Value, paths: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    found(&path, value, paths);
                }
            }
            Value::Array(all) => {
                assert!(!all.is_empty(), "{at}: an example has one of each");
                all.iter().for_each(|one| found(&format!("{at}[]"), one, paths));
            }
            _ => drop(paths.insert(at.to_owned())),
        }
    }

    /// Fails where an answer has other fields than its text says.
    pub(crate) fn is_as_told(text: &str, answer: &impl Serialize) {
        let Ok(answer) = serde_json::to_value(answer) else { panic!("it is no JSON") };
        let mut there = BTreeSet::new();
        found("", &answer, &mut there);
        assert_eq!(there, told(text));
    }
}
