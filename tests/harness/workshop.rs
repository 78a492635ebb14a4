//! Where the programs are, and what is made once for all platforms of a test run: the certificates.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use nexushub_launch::lock::Lock;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::HANG;

/// The base domain of every platform of the tests.
pub const DOMAIN: &str = "yesterday.localhost";

/// The folder of the programs: `NEXUSHUB_BIN_DIR`, or the folder above the test's own.
///
/// # Panics
/// When the test does not know where it is.
#[must_use]
pub fn bin_dir() -> PathBuf {
    env::var_os("NEXUSHUB_BIN_DIR").map_or_else(beside, PathBuf::from)
}

/// The folder where cargo puts programs: `deps/` below it holds the tests.
fn beside() -> PathBuf {
    let own = env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    if folder.ends_with("deps") { folder.parent().unwrap().to_owned() } else { folder.to_owned() }
}

/// One program; those of the tests themselves lie where cargo puts them.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let there = bin_dir().join(name);
    if there.exists() { there } else { beside().join(name) }
}

/// A copy of the folder of programs, to be changed at will: no program of it is shared with another test.
///
/// # Panics
/// When there is no space.
pub fn copy_programs(to: &Path) {
    fs::create_dir_all(to).unwrap();
    let names = crate::DAEMONS.map(|daemon| format!("nexushub-{daemon}"));
    for name in
        names.iter().map(String::as_str).chain(["nexushub-supervisor", "nexushub-shim", "nexushub-sandbox"])
    {
        install(&program(name), &to.join(name));
    }
}

/// A story's thousand connections need more descriptors than shells give.
///
/// # Panics
/// When our own hard limit is refused.
pub fn open_as_many_files_as_may_be() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

/// Copies a program. A process of its own does it: one that the test forks meanwhile would inherit a descriptor that writes
/// the copy, and as long as it has that, the copy can't be run ("text file busy").
///
/// # Panics
/// When it can't be copied.
pub fn install(program: &Path, to: &Path) {
    let mut install = Command::new("install");
    match install.args(["-m", "755", "--"]).arg(program).arg(to).status() {
        Ok(status) => assert!(status.success(), "{} can't be copied", program.display()),
        // The emulated machine holds nothing but the platform, and its few stories fork little.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::copy(program, to).unwrap();
            fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Err(error) => panic!("install: {error}"),
    }
}

/// Puts these bytes in place of a program, or where there was none, as an upgrade does: by rename. They are written aside, for the
/// reason that [`install`] has.
///
/// # Panics
/// When there is no space.
pub fn put_program(to: &Path, content: &[u8]) {
    let [aside, new] = ["content", "new"].map(|ending| to.with_extension(ending));
    fs::write(&aside, content).unwrap();
    install(&aside, &new);
    fs::remove_file(aside).unwrap();
    fs::rename(new, to).unwrap();
}

/// Puts another build of a program in its place, that does the same.
///
/// # Panics
/// When there is no such program, or no space.
pub fn rebuild(program: &Path) {
    put_program(program, &[fs::read(program).unwrap(), b"another build".to_vec()].concat());
}

/// A copy of the programs that every user may run.
///
/// # Panics
/// When there is no space.
#[must_use]
pub fn programs_for_anybody() -> tempfile::TempDir {
    let mut folder = tempfile::Builder::new();
    let folder =
        folder.prefix("nhbin").permissions(fs::Permissions::from_mode(0o755)).tempdir_in("/tmp").unwrap();
    copy_programs(folder.path());
    folder
}

/// Runs the command that people type, to its end.
///
/// # Panics
/// When it can't be started.
#[must_use]
pub fn nexushub(home: &Path, arguments: &[&str]) -> Output {
    typed(home, arguments).output().unwrap()
}

/// The command that people type, not yet started.
#[must_use]
pub fn typed(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("nexushub"));
    command.arg("--home").arg(home).args(arguments).current_dir(home).stdin(Stdio::null());
    command
}

/// The folder of `ca.crt`, `server.crt` and `server.key`, made by `nexushub certs` once and kept beside the tests.
///
/// # Panics
/// When they can't be made.
#[must_use]
pub fn certificates() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = beside().join("nexushub-e2e-certs");
        fs::create_dir_all(&folder).unwrap();
        let _turn = Lock::acquire_within(&folder.join("lock"), HANG)
            .unwrap()
            .expect("another test run makes them for ever");
        if !folder.join("server.crt").exists() {
            let mut command = Command::new(program("nexushub"));
            command.arg("certs").arg("--dir").arg(&folder).args(["--domain", DOMAIN]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "nexushub certs: {}", String::from_utf8_lossy(&output.stderr));
        }
        folder
    })
}
