//! `nexushub bootstrap`: the platform's own apps, login and admin, as static instances of this platform.
//!
//! Idempotent: an instance's file is written once, with the first administrator's password made, hashed into it and said; from then
//! on the file is its reader's, and only the line that says where the release is follows the installed program.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::{Args, ValueEnum};
use nexushub_chassis::names::{ADMIN_INSTANCE, LOGIN_INSTANCE};
use nexushub_launch::durable;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    failure::{Failure, OK},
    out,
    place::Place,
    up::beside,
};

/// Hexadecimal digits of a program's digest in its package's name.
const DIGITS: usize = 12;
/// What a password is made of: nothing that looks like something else.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Groups of four of them in a password: 100 bits.
const GROUPS: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct Bootstrap {
    /// How the two apps are isolated, where their files are new; without it, as the platform finds best
    #[arg(long, value_enum)]
    driver: Option<Driver>,

    /// Give the administrator a new password, which is said once, for who has lost it: from `nexushub restart provider`, or the next start
    #[arg(long)]
    reset_password: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Driver {
    Auto,
    Krun,
    Sandbox,
    Process,
}

/// One of the two apps.
struct Own {
    name: &'static str,
    text: fn(&Text<'_>) -> String,
}

/// What goes into a new instance's file.
struct Text<'a> {
    release: &'a str,
    /// A line of its own, or nothing.
    driver: &'a str,
    /// The hash of the first administrator's password.
    hash: &'a str,
}

/// Where things go.
struct Folders {
    apps: PathBuf,
    packages: PathBuf,
}

impl Folders {
    fn of(place: &Place) -> Result<Self, Failure> {
        /// The one key of the table that matters here; the rest is provider's to judge.
        #[derive(Default, Deserialize)]
        struct Table {
            apps_dir: Option<PathBuf>,
        }
        let config = place.config()?;
        let apps = config.section::<Table>("provider")?.apps_dir;
        let apps = config.resolve(apps.as_deref().unwrap_or(Path::new("apps.d")));
        Ok(Self { apps, packages: place.state.join("packages") })
    }

    fn make(&self, state: &Path) -> Result<(), Failure> {
        for (folder, mode) in [(state, 0o700), (&self.packages, 0o755), (&self.apps, 0o755)] {
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(folder);
            made.map_err(|error| Failure::io("make", folder, &error))?;
        }
        Ok(())
    }
}

/// `nexushub bootstrap`
pub(crate) fn run(place: &Place, args: &Bootstrap) -> Result<u8, Failure> {
    let folders = Folders::of(place)?;
    folders.make(&place.state)?;
    let driver = args.driver.and_then(|driver| driver.to_possible_value());
    let driver = driver.map_or(String::new(), |driver| format!("driver = \"{}\"\n", driver.get_name()));
    for own in [Own { name: "login", text: login }, Own { name: "admin", text: admin }] {
        let program = beside(&format!("nexushub-{}", own.name))?;
        let release = package(&folders.packages, own.name, &program)?;
        let file = folders.apps.join(format!("{}.toml", own.name));
        match fs::read_to_string(&file) {
            Ok(text) => {
                follow(&file, &text, &release)?;
                if args.reset_password && own.name == "admin" {
                    reset(&file, &program)?;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let password = (own.name == "admin").then(password);
                let hash =
                    password.as_deref().map_or(Ok(String::new()), |password| hash(&program, password))?;
                let text = (own.text)(&Text { release: &quoted(&release)?, driver: &driver, hash: &hash });
                put(&file, &text)?;
                password.map_or(Ok(()), |password| say(&password))?;
            }
            Err(error) => return Err(Failure::io("read", &file, &error)),
        }
        sweep(&folders.packages, own.name, &release, &file);
    }
    Ok(OK)
}

/// The package of a program, named by its content, so that a new program is a new release.
fn package(packages: &Path, name: &str, program: &Path) -> Result<PathBuf, Failure> {
    let content = fs::read(program).map_err(|error| Failure::io("read", program, &error))?;
    let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let release = packages.join(format!("{name}-{}", &digest[..DIGITS]));
    let app = release.join("bin/app");
    if !app.is_file() {
        let written = fs::create_dir_all(release.join("bin"))
            .and_then(|()| durable::write(&app, &content, 0o755))
            .and_then(|()| fs::set_permissions(&app, fs::Permissions::from_mode(0o755)));
        written.map_err(|error| Failure::io("write", &app, &error))?;
    }
    Ok(release)
}

/// An instance that is there already gets the new release, and keeps everything else.
fn follow(file: &Path, text: &str, release: &Path) -> Result<(), Failure> {
    let line = format!("release = {}", quoted(release)?);
    let new: String = text
        .split_inclusive('\n')
        .map(|old| if old.starts_with("release = ") { format!("{line}\n") } else { old.to_owned() })
        .collect();
    if new == text { Ok(()) } else { put(file, &new) }
}

/// Has admin give its first administrator another password.
fn reset(file: &Path, program: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::io("read", file, &error))?;
    let password = password();
    let Some(text) = with_reset(&text, &hash(program, &password)?) else {
        let what = format!("{} has no table [env]", file.display());
        return Err(Failure::new(what, "add one, and try again"));
    };
    put(file, &text)?;
    say(&password)?;
    out::say(
        "  It counts from `nexushub restart provider`, or the platform's next start; every session of before ends then.\n",
    )
}

/// An instance's file with the hash of a new password, in place of one of before; none where it has no table for it.
fn with_reset(text: &str, hash: &str) -> Option<String> {
    const KEY: &str = "ADMIN_PASSWORD_RESET = ";
    let kept: String = text.split_inclusive('\n').filter(|line| !line.starts_with(KEY)).collect();
    let (before, after) = kept.split_once("[env]\n")?;
    Some(format!("{before}[env]\n{KEY}\"{hash}\"\n{after}"))
}

/// Readable by its owner only: it holds a password's hash.
fn put(file: &Path, text: &str) -> Result<(), Failure> {
    durable::write(file, text.as_bytes(), 0o600).map_err(|error| Failure::io("write", file, &error))
}

/// Removes packages of an app that are neither this one nor named in its file, or in the one before. Those that can't be removed
/// take room and do no harm.
fn sweep(packages: &Path, name: &str, current: &Path, file: &Path) {
    let named = fs::read_to_string(file).unwrap_or_default();
    let mut others: Vec<_> = fs::read_dir(packages)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != current && !named.contains(&*path.to_string_lossy()))
        .filter(|path| digits(path, name).is_some())
        .collect();
    others.sort_by_key(|path| fs::metadata(path.join("bin/app")).and_then(|file| file.modified()).ok());
    others.pop(); // what runs until the platform has taken up the new one
    for path in others {
        let _ = fs::remove_dir_all(path);
    }
}

/// The digest in the name of a package of ours.
fn digits<'a>(path: &'a Path, name: &str) -> Option<&'a str> {
    let digits = path.file_name()?.to_str()?.strip_prefix(name)?.strip_prefix('-')?;
    let ours = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    ours.then_some(digits)
}

/// A path as a TOML string.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().and_then(|path| serde_json::to_string(path).ok()); // the same escapes
    text.ok_or_else(|| {
        let what = format!("{} can't stand in a configuration", path.display());
        Failure::new(what, "choose a folder whose name is UTF-8")
    })
}

/// Five groups of four letters and digits.
fn password() -> String {
    let groups = (0..GROUPS).map(|_| {
        let random = Uuid::new_v4().into_bytes(); // the first six bytes are random, all of them
        random[..4].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect::<String>()
    });
    groups.collect::<Vec<_>>().join("-")
}

/// The hash of a password, by the program that is going to verify it.
fn hash(admin: &Path, password: &str) -> Result<String, Failure> {
    let run = || {
        let mut command = Command::new(admin);
        let mut child = command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().map_or(Ok(()), |mut stdin| writeln!(stdin, "{password}"))?;
        child.wait_with_output()
    };
    let output = run().map_err(|error| Failure::io("run", admin, &error))?;
    let hash = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && hash.starts_with("$argon2id$") {
        return Ok(hash);
    }
    let what = format!("{} hash-password gave no hash ({})", admin.display(), output.status);
    Err(Failure::new(what, "build or install the whole platform: dist/build"))
}

fn say(password: &str) -> Result<(), Failure> {
    out::say(&format!(
        "\n  The administrator's name is admin, the password {password}\n  This is said once. It can be changed in the login app, by a \
         click on the name at the top of admin's pages.\n"
    ))
}

fn login(text: &Text<'_>) -> String {
    let Text { release, driver, .. } = text;
    format!(
        r#"# Who is signed in, where: the login app.
id = "{LOGIN_INSTANCE}"
app_id = "login"
display_name = "Login"
host_name = "login"
release = {release}
{driver}pin = ["host_name", "release"]

# Admin ends the sessions of users that are removed.
[route]
internal_callers = ["{ADMIN_INSTANCE}"]
"#
    )
}

fn admin(text: &Text<'_>) -> String {
    let Text { release, driver, hash } = text;
    format!(
        r#"# Which applications there are, and who may open them: the admin app.
id = "{ADMIN_INSTANCE}"
app_id = "admin"
display_name = "Admin"
host_name = "admin"
release = {release}
{driver}pin = ["host_name", "release"]
# While developing its pages: whatever is not /api, /internal or /public comes from a server on this machine.
#debug_port = 5173

# The first administrator's password, hashed (nexushub-admin hash-password); counts only while there are no users.
[env]
ADMIN_PASSWORD_HASH = "{hash}"

# Every page asks for a sign-in; login asks whose password it is, and who may open what.
[route]
sign_in = true
internal_callers = ["{LOGIN_INSTANCE}"]
"#
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_new_program_is_a_new_release_and_the_rest_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (program, file) = (folder.path().join("nexushub-login"), folder.path().join("login.toml"));
        fs::write(&program, "one").unwrap();
        let first = package(folder.path(), "login", &program).unwrap();
        assert_eq!(package(folder.path(), "login", &program).unwrap(), first);
        assert_eq!(fs::metadata(first.join("bin/app")).unwrap().permissions().mode() & 0o777, 0o755);
        let text =
            login(&Text { release: &quoted(&first).unwrap(), driver: "driver = \"process\"\n", hash: "" });
        let mine = format!("{text}hosts = [\"sign-in\"] # release = mine\n");
        put(&file, &mine).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&program, "two").unwrap();
        let second = package(folder.path(), "login", &program).unwrap();
        follow(&file, &mine, &second).unwrap();
        let names = [first.to_str().unwrap(), second.to_str().unwrap()];
        assert_eq!(fs::read_to_string(&file).unwrap(), mine.replace(names[0], names[1]));
    }

    #[test]
    fn old_packages_go_but_for_the_last_and_what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("nexushub-admin");
        let releases: Vec<_> = ["one", "two", "three"]
            .map(|content| {
                fs::write(&program, content).unwrap();
                package(folder.path(), "admin", &program).unwrap()
            })
            .into();
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::open(releases[0].join("bin/app")).unwrap().set_modified(old).unwrap();
        for other in ["admin-mine", "login-0123456789ab", "administer-0123456789ab"] {
            fs::create_dir(folder.path().join(other)).unwrap();
        }
        sweep(folder.path(), "admin", &releases[2], &folder.path().join("admin.toml"));
        let left: HashSet<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!left.contains(&releases[0]) && left.contains(&releases[1]) && left.contains(&releases[2]));
        assert_eq!(left.len(), 6, "{left:?}");
    }

    #[test]
    fn a_reset_takes_the_place_of_the_one_before() {
        let text = admin(&Text { release: "\"/r\"", driver: "", hash: "$first" });
        let once = with_reset(&text, "$one").unwrap();
        let again = with_reset(&once, "$two").unwrap();
        assert_eq!(again, once.replace("$one", "$two"));
        assert!(
            again.contains("\n[env]\nADMIN_PASSWORD_RESET = \"$two\"\nADMIN_PASSWORD_HASH = \"$first\"\n"),
            "{again}"
        );
        assert_eq!(with_reset("id = \"x\"\n", "$one"), None);
    }

    #[test]
    fn passwords_are_long_easy_to_read_and_never_the_same() {
        let some: HashSet<_> = (0..100).map(|_| password()).collect();
        assert_eq!(some.len(), 100);
        for password in some {
            assert_eq!(password.len(), 24);
            assert!(password.split('-').all(|group| group.bytes().all(|letter| LETTERS.contains(&letter))));
        }
    }

    #[test]
    fn a_program_that_gives_no_hash_is_named() {
        let failure = hash(Path::new("/bin/true"), "secret").unwrap_err();
        assert!(failure.message.contains("/bin/true") && !failure.message.contains("secret"), "{failure}");
    }
}
