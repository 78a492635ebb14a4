//! `nexushub dev`: builds an app, runs it on the platform beside what was pushed for good, shows what it says, and does it all again
//! when somebody asks or a file changed. However it ends, the app is removed: nothing is left but what was built.

mod input;
mod keys;
mod sources;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use clap::{Args, Parser};
use http::Method;
use nexushub_chassis::{names::Zone, standing};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Command, task::JoinHandle};

use self::input::{Input, Wish};
use crate::{
    args::{Cli, Command as Verb},
    failure::{Failure, OK},
    https::Client,
    hub::Hub,
    life, logs, out,
    package::Package,
    progress, push,
    table::one_line,
    upload::{Description, Remote},
};

/// What is put behind the name: an app that was pushed under it goes on.
const SUFFIX: &str = "-dev";
/// Longest name: with the suffix, and `debug-` before it, it still fits an app id.
pub(crate) const NAME_MAX: usize = 54;
/// How often the platform is told that the app is still wanted; it removes one that nobody asks for, after an hour.
const TOUCH_EVERY: Duration = Duration::from_secs(300);
/// How long the removal may take.
const REMOVAL: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder of the app's sources
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// What to call it; it runs as NAME-dev, beside a NAME that was pushed [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Builds the package; run by sh in DIR
    #[arg(long, value_name = "COMMAND", default_value = "./build")]
    build: String,
    /// The package that it makes, in DIR: a folder (bin/app, static/…) or an archive of one (zip or tar.zst)
    #[arg(long, value_name = "DIR|ARCHIVE", default_value = "package")]
    package: PathBuf,
    /// Build and push again when a file below DIR changes, or below this folder of it; not for what begins with a dot, nor in
    /// target, dist, node_modules or the package
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".")]
    watch: Option<PathBuf>,
    /// A front end's development server on this machine, which answers what is not the app's /api, /public or /internal
    #[arg(long, value_name = "http://localhost:PORT")]
    static_url: Option<String>,
    /// The host name, if it shall be another one; below the base domain
    #[arg(long, value_name = "HOST")]
    host_name: Option<String>,
    /// Seconds to wait until it answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// `nexushub dev`
pub(crate) async fn run(hub: &Hub, args: &Dev) -> Result<u8, Failure> {
    if let (Hub::Elsewhere(session), Some(url)) = (hub, &args.static_url) {
        let message = format!("{url} would be on the machine of {}, not on this one", session.url());
        return Err(Failure::usage(
            message,
            "leave --static-url out, or develop on a platform on this machine: --platform local",
        ));
    }
    let (client, zone) = hub.client(None)?;
    let mut session = Session::new(hub, args, &client, &zone)?;
    let watched = args.watch.as_ref().map(|below| session.dir.join(below));
    let files = watched.map(|folder| sources::watch(&canonical(&folder)?, &session.package)).transpose()?;
    let mut input = Input::new(files)?;
    let ended = session.serve(&mut input).await;
    let removed = session.remove().await;
    ended.and(removed).map(|()| OK)
}

fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure::io("find", path, &error))
}

/// What to call it, and where.
fn description(args: &Dev, dir: &Path, zone: &Zone) -> Result<Description, Failure> {
    let folder = || dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = args.name.clone().unwrap_or_else(folder);
    let described = Description::of(&format!("{name}{SUFFIX}"), args.host_name.as_deref(), zone)?;
    Ok(Description { keep: false, static_service_url: args.static_url.clone(), ..described })
}

/// One app under development.
struct Session<'a> {
    hub: &'a Hub,
    args: &'a Dev,
    client: &'a Client,
    dir: PathBuf,
    package: PathBuf,
    description: Description,
    url: String,
    app: Option<Remote<'a>>,
    /// Whether the platform was asked for one; it may have made it though nobody waited for the answer.
    asked: bool,
    followers: Followers,
}

/// What shows an app's log, and how it stands: of one app at a time.
#[derive(Default)]
struct Followers {
    of: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Followers {
    /// Goes on with this app. It is another one where the last was removed meanwhile, by somebody else or because nobody asked for it.
    fn go_on_with(&mut self, id: &str, begin: impl FnOnce() -> Vec<JoinHandle<()>>) {
        if self.of != id {
            self.end();
            (self.of, self.tasks) = (id.to_owned(), begin());
        }
    }

    fn end(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl<'a> Session<'a> {
    fn new(hub: &'a Hub, args: &'a Dev, client: &'a Client, zone: &Zone) -> Result<Self, Failure> {
        let dir = canonical(&args.dir)?;
        let description = description(args, &dir, zone)?;
        let url = zone.url(description.host_name.as_str());
        let package = dir.join(&args.package);
        Ok(Self {
            hub,
            args,
            client,
            dir,
            package,
            description,
            url,
            app: None,
            asked: false,
            followers: Followers::default(),
        })
    }

    /// Builds, pushes, and waits for wishes, until somebody wants no more.
    async fn serve(&mut self, input: &mut Input) -> Result<(), Failure> {
        remark(input.told());
        let mut touch = tokio::time::interval(TOUCH_EVERY);
        loop {
            let mut wish = match self.cycle(input).await {
                Ok(wish) => wish,
                Err(failure) if input.is_attended() => {
                    out::tell(&format!("nexushub: {failure}"));
                    None
                }
                Err(failure) => return Err(failure),
            };
            while wish.is_none() {
                tokio::select! {
                    next = input.next() => wish = Some(next),
                    _ = touch.tick() => self.touch().await,
                }
            }
            if wish == Some(Wish::Quit) {
                return Ok(());
            }
        }
    }

    /// Once from the sources to an app that answers; the wish that came meanwhile. A build goes on to its end whatever file it
    /// writes; a push is given up for a newer one.
    async fn cycle(&mut self, input: &mut Input) -> Result<Option<Wish>, Failure> {
        let began = Instant::now();
        let mut wish = None;
        {
            let mut build = std::pin::pin!(build(&self.args.build, &self.dir));
            loop {
                tokio::select! {
                    built = &mut build => break built?,
                    next = input.next() => match next {
                        Wish::Quit => return Ok(Some(Wish::Quit)),
                        Wish::Again => wish = Some(Wish::Again),
                    },
                }
            }
        }
        let built = began.elapsed();
        if wish.is_some() {
            return Ok(wish);
        }
        let began = Instant::now();
        tokio::select! {
            pushed = self.push() => pushed?,
            next = input.next() => return Ok(Some(next)),
        }
        let (built, pushed) = (built.as_millis(), began.elapsed().as_millis());
        remark(&format!("{} answers: build {built} ms, push {pushed} ms", self.url));
        Ok(None)
    }

    /// From the package to an app that answers.
    async fn push(&mut self) -> Result<(), Failure> {
        let package = Package::open(&self.package)?;
        let held = match &self.app {
            Some(app) => app.holds(&package).await?,
            None => None,
        };
        self.asked = true;
        let app = match (self.app.take(), held) {
            (Some(app), Some(_)) => app,
            _ => Remote::create(self.client, &self.description).await?,
        };
        let app = self.app.insert(app);
        if held != Some(true) {
            let upload = app.upload(&package);
            progress::sending("uploading", self.client.sent(), package.len, upload).await?;
        }
        progress::waiting("installing", app.install(&package)).await?;
        let id = app.id.clone();
        let up = app.await_up(Duration::from_secs(self.args.timeout));
        let hub = self.hub;
        self.followers.go_on_with(&id, || vec![follow_log(hub, &id), follow_state(hub, &id)]);
        progress::waiting("waiting until it answers", up).await.map_err(|standing| {
            Failure::new(
                format!("{} does not answer: {}", self.url, standing.told()),
                "what it said is above",
            )
        })
    }

    async fn touch(&self) {
        if let Some(app) = &self.app {
            // A platform that is away is told the next time.
            let _ = life::order(self.client, &app.id, Method::GET, "/status", "ask for the app").await;
        }
    }

    /// Leaves nothing behind.
    async fn remove(&mut self) -> Result<(), Failure> {
        self.followers.end();
        let id = match &self.app {
            Some(app) => Some(app.id.clone()),
            None if self.asked => push::known(self.hub, &self.description).await?.map(|app| app.id),
            None => None,
        };
        let Some(id) = id else { return Ok(()) };
        let removal = life::order(self.client, &id, Method::DELETE, "", "remove the app");
        let name = self.description.host_name.as_str();
        match tokio::time::timeout(REMOVAL, removal).await {
            Ok(Ok(())) => {
                remark(&format!("{name} is removed"));
                Ok(())
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let hint = "it is removed once nobody has asked for it for debug-api.expiry_s";
                Err(Failure::new(format!("{name} could not be removed within {} s", REMOVAL.as_secs()), hint))
            }
        }
    }
}

/// Runs a command to its end; it and all that it started end with who waits for it.
async fn build(command: &str, dir: &Path) -> Result<(), Failure> {
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(command).current_dir(dir).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let mut child = sh.spawn().map_err(|error| Failure::io("start", Path::new("sh"), &error))?;
    let mut group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let status = child.wait().await.map_err(|error| Failure::io("wait for", Path::new("sh"), &error))?;
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{command}` in {} failed: {status}", dir.display()), "what it said is above"))
}

/// A process group that ends when it is let go of.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL); // one that has ended needs none
        }
    }
}

/// Shows what the app says, from its first line on.
fn follow_log(hub: &Hub, id: &str) -> JoinHandle<()> {
    let (hub, id) = (hub.clone(), id.to_owned());
    tokio::spawn(async move {
        // As somebody would type it, so that there is one way in which a log is shown.
        let Ok(Cli { command: Verb::Logs(args), .. }) =
            Cli::try_parse_from(["nexushub", "logs", "--follow", &id])
        else {
            return;
        };
        if let Err(failure) = logs::run(&hub, &args).await {
            remark(&format!("its log can't be shown: {}", one_line(&failure.message)));
        }
    })
}

/// Shows how it stands whenever that changes.
fn follow_state(hub: &Hub, id: &str) -> JoinHandle<()> {
    let (hub, id) = (hub.clone(), id.to_owned());
    tokio::spawn(async move {
        let Ok(mut watch) = hub.watch(Some(&id)) else { return };
        let mut before = String::new();
        while watch.changed().await.is_ok() {
            let Some(one) = watch.known.all.get(&id) else { continue };
            let reason =
                if one.reason.is_empty() { String::new() } else { format!(": {}", one_line(&one.reason)) };
            let now = format!("{} (start {}){reason}", standing::word(one), one.generation);
            if now != before {
                remark(&now);
                before = now;
            }
        }
    })
}

/// A line of our own between the app's.
fn remark(text: &str) {
    out::tell(&format!("-- dev: {text}"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    fn args(more: &[&str]) -> Dev {
        let parsed = Cli::try_parse_from([&["nexushub", "dev"], more].concat()).unwrap();
        match parsed.command {
            Verb::Dev(args) => args,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn it_runs_beside_what_was_pushed_under_the_folders_name_or_another() {
        let zone = Zone::new("b.localhost", 8443);
        let named = |more: &[&str]| description(&args(more), Path::new("/src/My Shop"), &zone).unwrap();
        let shop = named(&[]);
        assert_eq!((shop.app_id.as_str(), shop.host_name.as_str()), ("debug-my-shop-dev", "my-shop-dev"));
        assert!(!shop.keep && shop.static_service_url.is_none());
        let other = named(&["--name", "x", "--static-url", "http://localhost:5173"]);
        assert_eq!(other.host_name.as_str(), "x-dev");
        assert_eq!(other.static_service_url.as_deref(), Some("http://localhost:5173"));
        let long = "x".repeat(NAME_MAX);
        assert!(description(&args(&["--name", &long]), Path::new("/"), &zone).is_ok());
        let longer = "x".repeat(NAME_MAX + 1);
        assert!(description(&args(&["--name", &longer]), Path::new("/"), &zone).is_err());
    }

    #[test]
    fn watch_takes_a_folder_only_where_it_is_written_to_it() {
        assert_eq!(args(&["--watch", "shop"]).dir, Path::new("shop"));
        assert_eq!(args(&["--watch", "shop"]).watch, Some(".".into()));
        assert_eq!(args(&["--watch=src"]).watch, Some("src".into()));
    }

    #[tokio::test]
    async fn who_follows_an_app_goes_on_with_the_one_that_takes_its_place() {
        let (mut followers, begun) = (Followers::default(), std::cell::RefCell::new(Vec::new()));
        let mut follow = |id: &'static str| {
            followers.go_on_with(id, || {
                begun.borrow_mut().push(id);
                vec![tokio::spawn(std::future::pending())]
            });
            followers.tasks[0].abort_handle()
        };
        let first = follow("1");
        follow("1");
        assert_eq!(*begun.borrow(), ["1"], "another push of the same app changes nothing");
        follow("2");
        assert_eq!(*begun.borrow(), ["1", "2"]);
        while !first.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_build_that_fails_says_which_command_did_where() {
        let folder = tempfile::tempdir().unwrap();
        build("echo x >made", folder.path()).await.unwrap();
        assert!(folder.path().join("made").exists());
        let failure = build("exit 3", folder.path()).await.unwrap_err();
        assert!(
            failure.message.contains("`exit 3`") && failure.message.contains("exit status: 3"),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn a_build_that_nobody_waits_for_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("alive");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (command, dir) =
            ("(exec 3>alive; echo on >&3; exec tail -f /dev/null) & wait", folder.path().to_owned());
        let building = tokio::spawn(async move { build(command, &dir).await });
        let read = tokio::task::spawn_blocking(move || {
            let mut alive = std::fs::File::open(fifo)?; // waits for a writer
            alive.read_exact(&mut [0; 3]).map(|()| alive)
        });
        let mut alive = read.await.unwrap().unwrap();
        building.abort();
        let rest = tokio::task::spawn_blocking(move || alive.read_to_end(&mut Vec::new()));
        assert_eq!(rest.await.unwrap().unwrap(), 0, "the pipe's last writer has ended");
    }
}
