//! Where a platform is: its configuration, folders, credentials and executables.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{env, io, net::SocketAddr};

use nexushub_launch::config::{Config, ROOT};
use nexushub_launch::daemon::{DAEMONS, Daemon};
use nexushub_launch::secret::{Secret, credentials};
use nexushub_launch::{Fault, durable, handoff::Handoff};
use nix::unistd::{AccessFlags, access, geteuid};

use crate::{config::Settings, log};

pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) run: PathBuf,
    pub(crate) state: PathBuf,
    /// The address that was asked for ...
    pub(crate) listen: SocketAddr,
    /// ... and the one that we got.
    pub(crate) bound: Option<SocketAddr>,
    /// The proxy's other listeners.
    pub(crate) extra: [(&'static str, Option<SocketAddr>); 2],
    handoff: Handoff,
}

/// What a daemon is started from: held, so that an upgrade in progress can't get into a restart.
pub(crate) struct Build {
    pub(crate) exe: File,
    /// The configuration's text.
    pub(crate) text: String,
    /// Which file the executable is, in brackets, and what of the configuration concerns the daemon: another build has another mark.
    pub(crate) mark: String,
}

impl Site {
    pub(crate) fn find(handoff: Handoff) -> Result<Self, Fault> {
        let here = env::current_dir().map_err(|error| unusable(Path::new("."), &error))?;
        let config = Config::load(handoff.config.as_deref(), &here)?;
        let (platform, mut settings) = (config.platform()?, config.section::<Settings>("supervisor")?);
        let (run, state) = config.folders(&handoff)?;
        log::set_level(platform.level());
        settings.bin_dir = match env::current_exe() {
            Ok(own) if settings.bin_dir.as_os_str().is_empty() => own.parent().unwrap_or(&own).to_owned(),
            _ => config.resolve(&settings.bin_dir),
        };
        let listen = handoff.listen.unwrap_or(platform.listen);
        let extra = platform.extra_listeners();
        Ok(Self { config, settings, run, state, listen, extra, bound: None, handoff })
    }

    /// The same place, as its configuration says now. What can't change while the platform runs is refused.
    pub(crate) fn reread(&self) -> Result<Self, Fault> {
        let new = Self { bound: self.bound, ..Self::find(self.handoff.clone())? };
        let (old_root, new_root) = (&self.config.root, &new.config.root);
        let (old, addresses) = ((self.listen, self.extra), (new.listen, new.extra));
        if (addresses, &new.run, &new.state, new_root) == (old, &self.run, &self.state, old_root) {
            return Ok(new);
        }
        let object = new.config.path.unwrap_or_default().display().to_string();
        let msg = "an address to listen at, run_dir, state_dir or the project root changed";
        Err(Fault::new("restart_needed", msg, object, "restart the platform, or change it back"))
    }

    /// Makes the folders; both must take new files.
    pub(crate) fn make_folders(&self) -> Result<(), Fault> {
        for folder in [&self.run, &self.state] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            let usable = made.and_then(|()| Ok(access(folder, AccessFlags::W_OK | AccessFlags::X_OK)?));
            usable.map_err(|error| unusable(folder, &error))?;
        }
        Ok(())
    }

    pub(crate) fn write_credentials(&self) -> Result<(), Fault> {
        self.make_folders()?;
        Secret::kept(&self.run.join("secret"))
            .and_then(|secret| secret.write_credentials(&self.run, Some(geteuid().as_raw())))
            .map_err(|error| unusable(&self.run, &error))
    }

    pub(crate) fn forget_credentials(&self) -> Result<(), Fault> {
        for folder in ["credentials", "operator"] {
            let _ = fs::remove_dir_all(self.run.join(folder)); // worthless once the secret is gone
        }
        durable::remove(&self.run.join("secret")).map_err(|error| unusable(&self.run, &error))
    }

    pub(crate) fn build(&self, daemon: &Daemon) -> Result<Build, Fault> {
        let path = self.settings.bin_dir.join(format!("nexushub-{}", daemon.name));
        let opened = File::open(&path).and_then(|exe| exe.metadata().map(|file| (exe, file)));
        let (exe, file) = opened.map_err(|error| {
            let (msg, hint) = (format!("no program: {error}"), "install it, or set supervisor.bin_dir");
            Fault::new("executable_missing", msg, path.display().to_string(), hint)
        })?;
        let file = (&path, file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
        let tables = self.config.fingerprint(&["platform", "rpc", "telemetry", daemon.name]);
        Ok(Build { exe, text: self.config.text().to_owned(), mark: format!("{file:?} {tables}") })
    }

    pub(crate) fn builds(&self) -> Result<Vec<Build>, Fault> {
        DAEMONS.iter().map(|daemon| self.build(daemon)).collect()
    }

    /// The environment of a daemon that reads this configuration file: what it needs, and nothing of ours.
    pub(crate) fn env(&self, daemon: &Daemon, config: Option<PathBuf>) -> Vec<(&'static str, OsString)> {
        let root = config.is_some().then(|| (ROOT, self.config.root.clone().into_os_string()));
        let handoff = Handoff {
            config,
            run: Some(self.run.clone()),
            state: Some(self.state.clone()),
            listen: self.bound.or(Some(self.listen)),
            credentials: Some(credentials(&self.run, daemon.name)),
            watchdog: None,
        };
        let own = ["PATH", "LANG", "TZ"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        handoff.to_env().into_iter().chain(root).chain(own).collect()
    }
}

pub(crate) fn unusable(folder: &Path, error: &io::Error) -> Fault {
    let (msg, hint) =
        (format!("folder can't be used: {error}"), "make it writable, or choose another --home");
    Fault::new("folder_unwritable", msg, folder.display().to_string(), hint)
}
