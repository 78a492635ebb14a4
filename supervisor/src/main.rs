//! The program `nexushub-supervisor`; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nexushub_supervisor::main()
}
