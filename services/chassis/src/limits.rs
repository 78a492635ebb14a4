//! Limits that the kernel sets and a daemon may move.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// As many open files as the kernel lets this process have: connections, children and followers each take some. What a daemon
/// starts has to lower its own again where it matters (select(2) knows 1024).
pub(crate) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "could not raise the limit of open files");
    }
}
