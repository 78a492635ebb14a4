//! `nexushub-procmgr`: see the library.

fn main() -> std::process::ExitCode {
    nexushub_chassis::daemon::main::<nexushub_procmgr::Procmgr>()
}
