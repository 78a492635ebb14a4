//! What the guest is told: from the command line and this process's environment to the agent's configuration.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::{fs, io, path::Path};

use nexushub_agent::config::Config;

use crate::args::Options;

/// The app's variables have it before their names: `LD_PRELOAD` of an app must not be one of this program's, which is linked
/// dynamically and may run as root.
pub(crate) const PREFIX: &str = "app_";

/// The host's authorities, in one file, where its packages put them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

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
        authorities: options.way_out.and_then(|_| fs::read(AUTHORITIES).ok()),
    })
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
    fn only_the_apps_variables_are_passed_on_and_without_their_prefix() {
        let all = [("app_A", "1 = \"2\"\n"), ("PATH", "/bin"), ("app_LD_PRELOAD", "/x"), ("app", "y")];
        let passed = environment(all.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(passed, ["A=1 = \"2\"\n", "LD_PRELOAD=/x"]);
    }
}
