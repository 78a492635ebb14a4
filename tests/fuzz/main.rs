//! The search: libFuzzer over the target that `NEXUSHUB_FUZZ` names. `tests/fuzz/run` builds it so that it sees where it has been,
//! and starts it for each.

#![no_main]
#![allow(clippy::unwrap_used, clippy::panic)] // it ends loudly

use std::{env, sync::OnceLock};

use nexushub_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = env::var("NEXUSHUB_FUZZ").expect("NEXUSHUB_FUZZ names a target");
        let found = nexushub_fuzz::all().into_iter().find(|(target, _)| *target == name);
        let (_, target) = found.unwrap_or_else(|| panic!("there is no target {name}"));
        TARGET.set(target).unwrap();
    },
    |bytes: &[u8]| {
        TARGET.get().unwrap()(bytes);
    }
);
