//! `nexushub releases` and `nexushub rollback`: which releases of a pushed app are kept, and the way back to one of them.

use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    args::Output,
    failure::{Failure, OK},
    https::Client,
    hub::Hub,
    out, progress, push, pushed,
    table::{Spare, fitted, one_line},
    upload::Remote,
};

#[derive(Debug, Args)]
pub(crate) struct Releases {
    /// The app: id, app id, name it was pushed by, or host name
    #[arg(value_name = "APP")]
    app: String,
    /// How to print them
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Another address of the platform
    #[arg(long, value_name = "https://HOST[:PORT]")]
    url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The app: id, app id, name it was pushed by, or host name
    #[arg(value_name = "APP")]
    app: String,
    /// The release, or the beginning of its id or its SHA-256; the last healthy one if not said
    #[arg(value_name = "RELEASE")]
    release: Option<String>,
    /// Seconds to wait until it answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Another address of the platform
    #[arg(long, value_name = "https://HOST[:PORT]")]
    url: Option<String>,
}

/// The whole answer, as programs get it.
#[derive(Debug, Serialize)]
struct Told {
    version: u32,
    releases: Vec<Release>,
}

/// A release as the platform tells it, and as it is told on.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
pub(crate) struct Release {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    installed_at: String,
    state: String,
    healthy: bool,
}

impl Release {
    /// Whether it is the one that runs, or that ran last.
    pub(crate) fn is_current(&self) -> bool {
        self.state == "current"
    }
}

/// `nexushub releases`
pub(crate) async fn releases(hub: &Hub, args: &Releases) -> Result<u8, Failure> {
    let (client, _) = hub.client(args.url.as_deref())?;
    let releases = app(hub, &client, &args.app).await?.releases().await?;
    match args.output {
        Output::Json => {
            let told = Told { version: 1, releases };
            out::say(&serde_json::to_string_pretty(&told).unwrap_or_default())?;
        }
        Output::Table if releases.is_empty() => out::tell(&format!("{} has no release yet", args.app)),
        Output::Table => out::say(&fitted(HEAD, &rows(&releases), &SPARE))?,
    }
    Ok(OK)
}

/// `nexushub rollback`
pub(crate) async fn rollback(hub: &Hub, args: &Rollback) -> Result<u8, Failure> {
    let (client, _) = hub.client(args.url.as_deref())?;
    let app = app(hub, &client, &args.app).await?;
    let began = Instant::now();
    let release = progress::waiting("rolling back", app.roll_back(args.release.as_deref())).await?;
    let up = app.await_up(Duration::from_secs(args.timeout));
    if let Err(standing) = progress::waiting("waiting until it answers", up).await {
        for line in push::last_words(hub, &app.id, &standing).await {
            out::tell(&format!("  {line}"));
        }
        let hint =
            format!("what it said last is above; all of it: {}", hub.command(&format!("logs {}", app.id)));
        let message = format!("release {release} of {} does not answer: {}", args.app, standing.told());
        return Err(Failure::new(message, hint));
    }
    let elapsed = began.elapsed().as_millis();
    out::say(&format!("{} runs release {release} again, after {elapsed} ms", args.app))?;
    Ok(OK)
}

const HEAD: [&str; 6] = ["STATE", "HEALTH", "INSTALLED", "VERSION", "NAME", "RELEASE"];
/// What a narrow terminal does without.
const SPARE: [Spare; 4] = [
    Spare::Column("NAME"),
    Spare::Beyond("VERSION", 12),
    Spare::Beyond("INSTALLED", 17),
    Spare::Column("VERSION"),
];

fn rows(releases: &[Release]) -> Vec<[String; 6]> {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
    releases
        .iter()
        .map(|release| {
            let healthy = if release.healthy { "was healthy" } else { "never healthy" };
            let (installed, id) = (one_line(&release.installed_at), one_line(&release.id));
            [
                one_line(&release.state),
                healthy.to_owned(),
                installed,
                text(&release.version),
                text(&release.name),
                id,
            ]
        })
        .collect()
}

/// The application that a person means.
async fn app<'c>(hub: &Hub, client: &'c Client, name: &str) -> Result<Remote<'c>, Failure> {
    let app = pushed::named(hub, name).await?.ok_or_else(|| pushed::unknown(hub, name))?;
    Ok(Remote::known(client, app.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{shapes, table};

    #[test]
    fn releases_are_told_in_columns_and_nothing_in_them_moves_the_terminal() {
        let release = Release {
            id: "ab-2".into(),
            version: Some("7\u{1b}[2J".into()),
            installed_at: "2026-01-02T03:04:05Z".into(),
            state: "current".into(),
            healthy: true,
            ..Release::default()
        };
        let told = fitted(HEAD, &rows(&[release]), &SPARE);
        assert_eq!(
            told,
            "STATE    HEALTH       INSTALLED             VERSION  NAME  RELEASE\n\
             current  was healthy  2026-01-02T03:04:05Z  7 [2J    -     ab-2"
        );
    }

    #[test]
    fn releases_fit_a_terminal_with_their_ids_whole() {
        let id = "84d89877f0d4041efb6bf91a16f0248f-12".to_owned();
        let installed_at = "2026-01-02T03:04:05.678Z".to_owned();
        let (name, version) = (Some("The shop of the corner".to_owned()), Some("1.20.300-beta.4".to_owned()));
        let state = "current".to_owned();
        let release = Release { id: id.clone(), name, version, installed_at, state, ..Release::default() };
        let release = Release { sha256: Some(id.clone()), ..release };
        let told = table::tests::fits(HEAD, &rows(std::slice::from_ref(&release)), &SPARE);
        shapes::tests::is_as_told(shapes::RELEASES, &Told { version: 1, releases: vec![release] });
        assert!(told.iter().all(|told| told.contains(&id)), "{told:?}");
        assert!(told[0].contains("2026-01-02T03:04…"), "{}", told[0]);
    }
}
