//! The proxy daemon; all of it is in the library.

fn main() -> std::process::ExitCode {
    nexushub_chassis::daemon::main::<nexushub_proxy::Gateway>()
}
