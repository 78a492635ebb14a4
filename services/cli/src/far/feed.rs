//! What becomes of the apps of a platform elsewhere: debug-api's stream of all that were pushed, read as it comes and asked for again
//! when it breaks off. A platform of an earlier release, which has no such stream, or one with no place for another reader of it, is
//! asked again and again.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use nexushub_chassis::names::{InstanceId, Zone};
use nexushub_proto::debugapi::Application;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Listed, Standing, instances};
use crate::{
    failure::Failure,
    https::{Ask, Client, Stream},
    pushed,
    watch::Known,
};

/// How often a platform is asked that doesn't tell by itself.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Longest event that is taken.
const EVENT_MAX: usize = 1 << 20;

/// News that go on.
pub(crate) struct Feed {
    client: Client,
    /// The app that is meant; none = all.
    name: Option<String>,
    zone: Zone,
    source: Source,
}

/// Who tells.
enum Source {
    /// Nobody at the moment.
    Nobody,
    Stream(Box<Reading>),
    /// Whoever is asked, at this time again.
    Answers(Instant),
}

/// A stream, what was heard of it that is no event yet, and what it told so far.
struct Reading {
    stream: Stream,
    events: Events,
    known: Known,
    /// Apps of which procmgr could not be heard when they were told.
    unsure: BTreeSet<String>,
    /// Whether all there is was told once.
    whole: bool,
}

/// An application, as the stream tells it.
#[derive(Deserialize)]
struct Entry {
    application: Listed,
    standing: Standing,
}

#[derive(Deserialize)]
struct Removed {
    id: InstanceId,
}

/// Events, put together from the bytes of a stream.
#[derive(Default)]
struct Events {
    held: Vec<u8>,
}

impl Events {
    /// The names and data of those that these bytes end, in order.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<(String, String)>, Failure> {
        self.held.extend_from_slice(bytes);
        let end = self.held.windows(2).rposition(|two| two == b"\n\n").map_or(0, |at| at + 2);
        let rest = self.held.split_off(end);
        let whole = String::from_utf8(std::mem::replace(&mut self.held, rest));
        if self.held.len() > EVENT_MAX {
            return Err(strange("an event of it has no end"));
        }
        let whole = whole.map_err(|_| strange("it is no text"))?;
        let field = |event: &str, name: &str| {
            let said = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            said.unwrap_or_default().trim_start().to_owned()
        };
        let events = whole.split("\n\n").filter(|event| !event.is_empty());
        Ok(events.map(|event| (field(event, "event"), field(event, "data"))).collect())
    }
}

fn strange(why: &str) -> Failure {
    Failure::new(
        format!("the platform's list of apps is not understood: {why}"),
        "is it a NexusHub platform?",
    )
}

impl Feed {
    /// Nothing is asked yet.
    pub(crate) fn new(client: Client, name: Option<&str>, zone: &Zone) -> Self {
        Self { client, name: name.map(str::to_owned), zone: zone.clone(), source: Source::Nobody }
    }

    /// What is known after something changed, or may have. Whoever is away is a failure that passes.
    pub(crate) async fn next(&mut self) -> Result<Known, Failure> {
        loop {
            match &mut self.source {
                Source::Nobody => self.source = self.open().await?,
                Source::Answers(next) => {
                    tokio::time::sleep_until(*next).await;
                    *next = Instant::now() + ASK_EVERY;
                    let Self { client, name, zone, .. } = self;
                    let heard = instances(client, |app| is_meant(app, name.as_deref(), zone)).await;
                    if heard.is_err() {
                        self.source = Source::Nobody; // which may be another platform by the next time
                    }
                    return heard;
                }
                Source::Stream(reading) => {
                    let meant = |app: &Application| is_meant(app, self.name.as_deref(), &self.zone);
                    let heard = reading.hear(meant).await;
                    if let Ok(Some(known)) = heard {
                        return Ok(known);
                    }
                    if !matches!(heard, Ok(None)) {
                        self.source = Source::Nobody;
                    }
                    heard?;
                }
            }
        }
    }

    async fn open(&self) -> Result<Source, Failure> {
        let (method, path) = (Method::GET, "/debug/application");
        let fields = [("accept", "text/event-stream")];
        let ask = Ask { method, path, content_type: "", fields: &fields, body: Bytes::new() };
        let stream = self.client.stream(ask).await?;
        let tells = stream.headers.get("content-type").is_some_and(|media| media == "text/event-stream");
        match stream.status {
            StatusCode::OK if tells => {
                let (events, known, unsure) = Default::default();
                Ok(Source::Stream(Box::new(Reading { stream, events, known, unsure, whole: false })))
            }
            // It has no such stream, or no place for another, or is away, which is seen by asking.
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => Ok(Source::Answers(Instant::now())),
            _ => {
                let failure = super::expected(stream.rest().await, "watch the apps").err();
                Err(failure.unwrap_or_else(|| strange("there is none")))
            }
        }
    }
}

/// Whether an app is the one of this name, if there is one.
fn is_meant(app: &Application, name: Option<&str>, zone: &Zone) -> bool {
    name.is_none_or(|name| pushed::is_named(app, name, Some(zone)))
}

impl Reading {
    /// What is known by now; none = not all of it yet. A stream that ends is a failure that passes.
    async fn hear(&mut self, meant: impl Fn(&Application) -> bool) -> Result<Option<Known>, Failure> {
        let broke = |why: String| Failure { passing: true, ..Failure::new(why, "") };
        let bytes = self.stream.next().await.map_err(broke)?;
        let bytes = bytes.ok_or_else(|| broke("the list of apps broke off".to_owned()))?;
        for (event, data) in self.events.take(&bytes)? {
            match event.as_str() {
                "application" => {
                    let Entry { application, standing } = understood(&data)?;
                    let app = Application::from(application);
                    self.forget(&app.id);
                    if meant(&app) {
                        self.unsure.extend((!standing.details.current).then(|| app.id.clone()));
                        self.known.all.extend(standing.instance(app).map(|one| (one.id.clone(), one)));
                    }
                }
                "removed" => self.forget(understood::<Removed>(&data)?.id.as_str()),
                "whole" => self.whole = true,
                _ => {} // a sign of life, the end, or something newer than this command
            }
        }
        self.known.whole = self.unsure.is_empty();
        Ok(self.whole.then(|| self.known.clone()))
    }

    fn forget(&mut self, id: &str) {
        self.known.all.remove(id);
        self.unsure.remove(id);
    }
}

fn understood<T: serde::de::DeserializeOwned>(data: &str) -> Result<T, Failure> {
    serde_json::from_str(data).map_err(|error| strange(&error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn events_are_whole_whatever_the_pieces() {
        let text = "event: application\ndata: {\"a\":\"ä\"}\n\n: alive\n\nevent: whole\ndata: {}\n\nevent: x";
        for size in [1, 2, 7, 4096] {
            let mut events = Events::default();
            let all: Vec<_> =
                text.as_bytes().chunks(size).flat_map(|piece| events.take(piece).unwrap()).collect();
            let told: Vec<_> = all.iter().map(|(event, data)| (event.as_str(), data.as_str())).collect();
            assert_eq!(told, [("application", "{\"a\":\"ä\"}"), ("", ""), ("whole", "{}")], "{size}");
        }
        assert!(Events::default().take(b"data: \xff\n\n").is_err());
        let mut endless = Events::default();
        assert!(endless.take(&vec![b' '; EVENT_MAX]).is_ok());
        assert!(endless.take(b" ").is_err());
    }
}
