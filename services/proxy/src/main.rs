//! The proxy daemon; all of it is in the library.

/// A request takes some thirty small pieces of memory and gives them back: a tenth of its time with the allocator of glibc.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator asks for pages of 2 MiB, of which a proxy that rests would hold several for little; it does as well without.
    let _ = nix::sys::prctl::set_thp_disable(true);
    nexushub_chassis::daemon::main::<nexushub_proxy::Gateway>()
}
