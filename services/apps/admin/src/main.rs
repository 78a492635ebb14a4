//! The admin app's program: the app itself, or with `hash-password` the hash of the line on its standard input.

use std::{io, process::ExitCode};

/// Keeps no more than the hashes take that are made at once (19 MiB each); libc's own would keep as much for each thread that
/// ever made one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => nexushub_admin::run().map(|()| ExitCode::SUCCESS),
        ["hash-password"] => nexushub_admin::hash_password(),
        _ => {
            eprintln!(
                "usage: nexushub-admin                 runs the app (PORT, HOST, INTERNAL_SECRET, NEXUSHUB_DATA)"
            );
            eprintln!(
                "       nexushub-admin hash-password   reads a password, one line, and prints its hash"
            );
            Ok(ExitCode::from(2))
        }
    }
}
