//! `nexushub-shim <instance> <generation>`: started by procmgr through `nexushub_shim::spawn::launch`, by nobody else.

mod app;
mod entrance;
mod inherit;
mod lines;
mod peer;
mod tree;
mod watch;

fn main() -> std::process::ExitCode {
    match inherit::take().and_then(|(spec, _held)| watch::run(&spec)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // For who starts it by hand. Under procmgr it goes nowhere, and no exit record says "lost".
            eprintln!("nexushub-shim: {error}");
            std::process::ExitCode::from(64)
        }
    }
}
