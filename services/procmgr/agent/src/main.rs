//! `nexushub-agent`: the first process of a microVM, started by its kernel and by nobody else.

mod app;
mod control;
mod ground;
mod kills;
mod life;
mod wire;

fn main() -> std::process::ExitCode {
    if std::process::id() != 1 {
        eprintln!("nexushub-agent: it is the first process of a microVM and does nothing elsewhere");
        return std::process::ExitCode::from(64);
    }
    life::live()
}
