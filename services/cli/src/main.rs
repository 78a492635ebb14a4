//! `nexushub`: the command people type. See the library.

fn main() -> std::process::ExitCode {
    nexushub_cli::main()
}
