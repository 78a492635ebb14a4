//! The program `nexushub-debug-api`; everything is in the library.

fn main() -> std::process::ExitCode {
    nexushub_chassis::daemon::main::<nexushub_debug_api::DebugApi>()
}
