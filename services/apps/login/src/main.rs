//! The login app's program.

fn main() -> std::io::Result<()> {
    nexushub_login::run()
}
