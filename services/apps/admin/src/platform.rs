//! What the apps are doing, asked of the platform: its facade behind the internal entrance. Nothing here is kept; with the
//! platform's part away the pages say so and show what admin itself knows.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Response},
};
use http_body_util::BodyExt;
use nexushub_applib::{
    calls::{Call, Entrance, Error},
    text::percent,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::json;

use crate::Asker;

/// How long the facts for a page may take.
const FACTS: Duration = Duration::from_secs(3);
/// How long a release may take to turn out well or not.
const OUTCOME: Duration = Duration::from_secs(290);
/// How long another order may take.
const ORDER: Duration = Duration::from_secs(30);

/// A field that may be null is its default then.
fn lenient<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

macro_rules! facts {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default)]
        pub(crate) struct $name { $(#[serde(deserialize_with = "lenient")] pub $field: $kind),* }
    };
}

facts! {
    /// An instance as the platform sees it.
    Instance {
        id: String, app_id: String, display_name: String, host_name: String, url: String, origin: String, state: String,
        reason: String, healthy: bool, since: String, restarts: u64, driver: String, release: String, memory_bytes: u64,
        requests: u64, errors: u64, history: Vec<Moment>,
    }
}
facts! {
    /// A change of an instance's state.
    Moment { at: String, state: String, reason: String }
}
facts! {
    /// Every instance, and what waits to be confirmed.
    Instances { instances: Vec<Instance>, held: Option<Held> }
}
facts! {
    /// Removals that are so many that somebody has to confirm them.
    Held { removed: Vec<String>, total: u64 }
}
facts! {
    /// An unpacked package of an app.
    Release { id: String, version: String, installed_at: String, by: String, state: String, reason: String, ungranted: String }
}
facts! {
    Releases { releases: Vec<Release> }
}
facts! {
    /// What became of a release.
    Outcome { release: String, state: String, reason: String, log: Vec<String>, ungranted: String }
}
facts! {
    /// A line of the platform's audit log.
    Entry { ts: String, daemon: String, who: String, what: String, object: String, from: String, result: String, detail: String }
}
facts! {
    Entries { entries: Vec<Entry> }
}

/// The facade; each call says for whom it is.
#[derive(Clone, Debug)]
pub(crate) struct Platform(pub Entrance);

impl Platform {
    fn call(method: Method, path: &str, by: &Asker) -> Call {
        Call::new(None, method, &format!("/internal/platform/{path}"))
            .header("x-acting-user", &percent(&by.name))
            .header("x-acting-address", &by.from)
            .patience(FACTS)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, by: &Asker) -> Result<T, Error> {
        self.0.ask(Self::call(Method::GET, path, by)).await
    }

    pub(crate) async fn instances(&self, by: &Asker) -> Result<Instances, Error> {
        self.get("instances", by).await
    }

    /// One instance; none when the platform doesn't know it (yet).
    pub(crate) async fn instance(&self, id: &str, by: &Asker) -> Result<Option<Instance>, Error> {
        known(self.get(&format!("instances/{}", percent(id)), by).await)
    }

    pub(crate) async fn releases(&self, id: &str, by: &Asker) -> Result<Vec<Release>, Error> {
        let releases: Option<Releases> =
            known(self.get(&format!("instances/{}/releases", percent(id)), by).await)?;
        Ok(releases.unwrap_or_default().releases)
    }

    pub(crate) async fn audit(&self, lines: u32, by: &Asker) -> Result<Vec<Entry>, Error> {
        Ok(self.get::<Entries>(&format!("audit?tail={lines}"), by).await?.entries)
    }

    /// Hands on a package, byte by byte, and waits for what becomes of it.
    pub(crate) async fn package(&self, id: &str, by: &Asker, zip: Body) -> Result<Outcome, Error> {
        let body = zip.map_err(axum::Error::into_inner).boxed_unsync();
        let call = Self::call(Method::POST, &format!("instances/{}/package", percent(id)), by);
        self.0.ask(call.header("content-type", "application/zip").stream(body).patience(OUTCOME)).await
    }

    /// Goes back to an earlier release; to the one before, if none is named.
    pub(crate) async fn roll_back(&self, id: &str, release: &str, by: &Asker) -> Result<Outcome, Error> {
        let said = if release.is_empty() { json!({}) } else { json!({ "release": release }) };
        let call = Self::call(Method::POST, &format!("instances/{}/rollback", percent(id)), by);
        self.0.ask(call.json(&said).patience(OUTCOME)).await
    }

    /// `restart`, `pause` or `resume`.
    pub(crate) async fn order(&self, id: &str, order: &str, by: &Asker) -> Result<(), Error> {
        let path = format!("instances/{}/{order}", percent(id));
        self.0.call(Self::call(Method::POST, &path, by).patience(ORDER)).await.map(drop)
    }

    pub(crate) async fn confirm(&self, by: &Asker) -> Result<(), Error> {
        self.0.call(Self::call(Method::POST, "held/confirm", by).patience(ORDER)).await.map(drop)
    }

    /// The lines of an app as they come, as server-sent events from after this cursor.
    pub(crate) async fn logs(
        &self,
        id: &str,
        after: Option<&str>,
        by: &Asker,
    ) -> Result<Response<Body>, Error> {
        let path = format!("instances/{}/logs?tail=200&follow=1", percent(id));
        let mut call = Self::call(Method::GET, &path, by);
        if let Some(cursor) = after {
            call = call.header("last-event-id", cursor);
        }
        let (answer, _) = self.0.open(call).await?;
        Ok(answer.map(Body::new))
    }
}

fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if error.status().is_some_and(|status| status.as_u16() == 404) => Ok(None),
        answer => answer.map(Some),
    }
}
