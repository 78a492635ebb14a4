//! Landlock: a fence of the kernel's own around the app's files, should a mount ever be other than planned. As far as the
//! kernel has it.

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus, Scope,
};

use crate::report::Reason;

/// The newest rules that are known here; an older kernel enforces what it can.
const NEWEST: ABI = ABI::V6;
/// Where the app may write.
const WRITABLE: [&str; 3] = ["/db", "/tmp", "/dev/shm"];

/// From here on this process and what it starts read anything, write to few places, and reach neither sockets without a
/// path nor processes outside. What isn't enforced is told.
///
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn restrict() -> Result<Option<&'static str>, Reason> {
    let status = rules().map_err(|error| Reason::new(format_args!("could not restrict files: {error}")))?;
    Ok(match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => Some("landlock: an older kernel enforces only part of it"),
        RulesetStatus::NotEnforced => Some("landlock: not supported by this kernel"),
    })
}

fn rules() -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let all = AccessFs::from_all(NEWEST);
    let rules = Ruleset::default().handle_access(all)?.scope(Scope::from_all(NEWEST))?;
    let mut rules =
        rules.create()?.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(NEWEST)))?;
    for folder in WRITABLE {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(folder)?, all))?;
    }
    let devices = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    rules = rules.add_rule(PathBeneath::new(PathFd::new("/dev")?, devices))?;
    let status = rules.restrict_self()?;
    Ok(status.ruleset)
}
