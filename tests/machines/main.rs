//! Apps in microVMs, and bounds by the unified control groups: the stories for a machine that has both. `tests/real/krun` boots
//! one and runs them there; on any other machine they fail.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bounds;
mod deploys;
mod hostile;
mod microvms;
mod own_apps;
mod way_out;

/// A script that starts so many processes at once and fails where it can't; either way they end with it.
fn fork_bomb(processes: usize) -> String {
    format!(
        "setsid sh -c 'trap \"kill -9 0\" EXIT; i=0; while [ $i -lt {processes} ]; do sleep 60 & i=$((i + 1)); done; \
         trap - EXIT; kill $(jobs -p)'"
    )
}
