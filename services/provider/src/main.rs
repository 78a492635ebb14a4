//! `nexushub-provider`: which app instances should exist. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nexushub_chassis::daemon::main::<nexushub_provider::Provider>()
}
