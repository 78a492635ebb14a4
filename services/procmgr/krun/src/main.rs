//! `nexushub-krun`: runs one app in a microVM of its own. Started by the shim as the first process of a pid namespace, or
//! with `--probe` by anybody who asks whether microVMs boot here.
//!
//! ```text
//! shim ─► keeper (pid 1): jail ─► forks ─► VMM: own user, own namespaces, system calls refused ─► libkrun, until it dies
//!         report pipe ◄─ keeper ◄─ control socket ◄─ vsock ◄─ agent, the guest's init: its word alone is the app's end
//! ```

mod args;
mod bpf;
mod files;
mod jail;
mod keeper;
mod link;
mod machine;
mod plan;
mod probe;
mod speed;
mod user;
mod watch;

fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args::parse(&args) {
        Ok(args::Task::Run(options)) => keeper::main(&options),
        Ok(args::Task::Probe(options)) => probe::main(&options),
        Err(reason) => {
            eprintln!("nexushub-krun: {reason}");
            std::process::ExitCode::from(64)
        }
    }
}
