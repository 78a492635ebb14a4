//! What the guest is told: from the command line and this process's environment to the agent's configuration.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::{fs, io, io::Read as _, path::Path};

use nexushub_agent::config::Config;

use crate::args::Options;

/// The app's variables have it before their names: `LD_PRELOAD` of an app must not be one of this program's, which is linked
/// dynamically and may run as root.
pub(crate) const PREFIX: &str = "app_";

/// The host's authorities, in one file, where its packages put them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Most bytes of them: several times what any distribution ships, and less than the guest's root holds beside all else.
const AUTHORITIES_BYTES: u64 = 1 << 20;

/// The configuration of a guest that runs an app.
pub(crate) fn config(options: &Options, base: bool) -> io::Result<Config> {
    let ca = options.ca.as_ref().map(fs::read).transpose();
    let ca =
        ca.map_err(|error| io::Error::other(format!("could not read the certificate authority: {error}")))?;
    Ok(Config {
        args: options.app.clone(),
        env: environment(std::env::vars_os()),
        hosts: options.hosts.clone(),
        hostname: options.hostname.clone(),
        ca,
        tmp_bytes: options.tmp_bytes,
        open_files: options.open_files,
        processes: options.processes,
        stop_ms: options.stop.as_millis().try_into().unwrap_or(u64::MAX),
        shares: options.release.is_some(),
        base,
        way_out: options.way_out,
        // Without them an app may bring its own.
        authorities: options.way_out.and_then(|_| authorities(Path::new(AUTHORITIES))),
    })
}

/// The authorities of a file; none if there is no such file, or, which is said in the app's log, it can't be used.
fn authorities(path: &Path) -> Option<Vec<u8>> {
    let told = |why: &str| eprintln!("nexushub-krun: {} is left out: {why}", path.display());
    match bounded(path) {
        Ok(pem) if pem.len() as u64 <= AUTHORITIES_BYTES => return Some(pem),
        Ok(_) => told("it has more than 1 MiB"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => told(&error.to_string()),
    }
    None
}

/// What a file holds, and of one that holds more than may be, one byte more.
fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(AUTHORITIES_BYTES + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether the host's `/usr` holds its libraries, so that sharing it is all that a dynamically linked app needs.
pub(crate) fn base() -> bool {
    fs::read_link("/lib").is_ok_and(|to| to == Path::new("usr/lib") || to == Path::new("/usr/lib"))
}

fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<OsString> {
    let entry = |(name, value): (OsString, OsString)| {
        let name = name.as_bytes().strip_prefix(PREFIX.as_bytes())?;
        Some(OsString::from_vec([name, b"=", OsStr::as_bytes(&value)].concat()))
    };
    variables.filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_beyond_the_bound_are_left_out_and_read_no_further() {
        let path = std::env::temp_dir().join(format!("nexushub-authorities-{}", std::process::id()));
        let most = usize::try_from(AUTHORITIES_BYTES).unwrap_or_default();
        let of = |bytes: usize| {
            fs::write(&path, vec![b'x'; bytes]).and_then(|()| bounded(&path)).map_or(0, |read| read.len())
        };
        assert_eq!((of(most), authorities(&path).map(|pem| pem.len())), (most, Some(most)));
        assert_eq!((of(2 * most), authorities(&path)), (most + 1, None));
        let _ = fs::remove_file(&path);
        assert_eq!(authorities(&path), None);
    }

    #[test]
    fn only_the_apps_variables_are_passed_on_and_without_their_prefix() {
        let all = [("app_A", "1 = \"2\"\n"), ("PATH", "/bin"), ("app_LD_PRELOAD", "/x"), ("app", "y")];
        let passed = environment(all.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(passed, ["A=1 = \"2\"\n", "LD_PRELOAD=/x"]);
    }
}
