//! An app's log as a stream: where the client wants it to begin, the lines that it wants in order and exactly once, and every
//! further one for as long as it listens. The cursor of a line is its position in procmgr's log, so a client that comes back
//! with one goes on right after it; so does this stream itself when procmgr is restarted.
//!
//! ```text
//!   where the newest N wanted lines begin (only if they must be searched for)
//!     ▼ position
//!   procmgr's stream ─▶ pieces joined ─▶ filter ─▶ outlet ─▶ client
//!     ▲ position             ends: asked for again        stands: let go of, and asked for again once the client has taken all
//! ```
//! Invariant: what a slow client has not taken yet is on disk, at procmgr; here and in procmgr's stream there is little of it.

mod form;
mod wish;

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use nexushub_chassis::{
    applog::{BadWish, Joiner, Reading, Told},
    retry::Retry,
};
use nexushub_proto::procmgr::ReadLogResponse;
use tokio::time::{Interval, MissedTickBehavior, timeout};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub(crate) use self::{
    form::{End, Form},
    wish::{TAIL_MAX, Wish},
};
use crate::{
    applications::{App, Hub, Visitor},
    error::ApiError,
    outlet::{Hangup, Outlet},
    peers::Flow,
    places::Place,
    record::{Wanted, now_ms},
};

/// How long a client may take nothing before procmgr's stream is let go of.
const STAND: Duration = Duration::from_millis(500);
/// How long the word that a stream ends waits for a client that takes nothing.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(1);

/// Whose log is streamed.
struct Subject {
    id: String,
    /// When it is cancelled there is nobody left whose log it would be.
    gone: CancellationToken,
    /// A developer's application, which doesn't expire while its log is read.
    visitor: Option<Visitor>,
}

impl Subject {
    /// Why it is gone.
    fn farewell(&self) -> End {
        self.visitor.as_ref().map_or(End::Deleted, |visitor| farewell(&visitor.app))
    }
}

/// Why an application is gone.
pub(crate) fn farewell(app: &App) -> End {
    if app.state().expired { End::Expired } else { End::Deleted }
}

/// Opens the stream of a developer's application.
pub(crate) async fn stream(
    hub: Arc<Hub>,
    app: Arc<App>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let wish = Wish::read(uri, headers, hub.config.log_history, now_ms())?;
    let place = hub.log_streams.take()?;
    app.touch();
    let wanted = app.state().record.wanted;
    if wanted == Wanted::Nothing {
        return Err(ApiError::NotRunning);
    }
    let visitor = Some(Visitor::begin(&hub, &app));
    let subject = Subject { id: app.id.clone(), gone: app.gone.clone(), visitor };
    let mut tail = Tail::new(hub, subject, wish);
    let first = tail.begin().await?;
    if wanted != Wanted::Run && first.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Err(ApiError::NoLog);
    }
    let mut response = start(tail, first, place);
    for (name, value) in
        [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::ACCESS_CONTROL_ALLOW_HEADERS, "Cache-Control")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Opens the stream of any instance, for the platform's own page.
pub(crate) async fn of_instance(hub: Arc<Hub>, id: String, wish: Wish) -> Result<Response, ApiError> {
    let place = hub.log_streams.take()?;
    let subject = Subject { id, gone: CancellationToken::new(), visitor: None };
    let mut tail = Tail::new(hub, subject, wish);
    let first = tail.begin().await?;
    if first.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Err(ApiError::NoLog);
    }
    Ok(start(tail, first, place))
}

fn start(tail: Tail, first: Opened, place: Place) -> Response {
    let media = tail.wish.form.media();
    let (outlet, body) = Outlet::open();
    tokio::spawn(async move {
        let _place = place;
        tail.run(outlet, first).await;
    });
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, media),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONNECTION, "keep-alive"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

type Next = Option<Result<ReadLogResponse, Status>>;
type Opened = Result<Flow<ReadLogResponse>, Status>;

/// How one stream of procmgr's ended.
enum Ended {
    /// All of what is kept was read.
    Over,
    Broke(Status),
    /// The client takes nothing.
    Stands,
}

/// What follows from that.
enum After {
    /// This stream ends, too.
    Nothing(End),
    /// It goes on from the position.
    More,
    /// The same, after a while.
    Retry,
}

/// One client's stream.
struct Tail {
    hub: Arc<Hub>,
    subject: Subject,
    wish: Wish,
    reading: Reading,
}

impl Tail {
    fn new(hub: Arc<Hub>, subject: Subject, wish: Wish) -> Self {
        let (filter, max) = (wish.filter.clone(), hub.config.max_log_line_bytes);
        let reading = match &wish.after {
            Some(after) => Reading::after(after.cursor.clone(), filter, max),
            None => Reading::anew(wish.begin, filter, max),
        };
        Self { hub, subject, wish, reading }
    }

    /// Opens the first stream. A cursor that is none is an error, unless the client's browser sent it by itself.
    async fn begin(&mut self) -> Result<Opened, ApiError> {
        let mut first = self.open().await;
        if first.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument) {
            if self.wish.after.as_ref().is_none_or(|after| !after.by_itself) {
                let may_be = "a cursor of this log".to_owned();
                return Err(ApiError::Wish(BadWish { what: "after", may_be }));
            }
            let max = self.hub.config.max_log_line_bytes;
            self.reading = Reading::anew(self.wish.begin, self.wish.filter.clone(), max);
            first = self.open().await;
        }
        match first {
            Err(status) if status.code() == Code::ResourceExhausted => {
                Err(ApiError::Crowded(status.message().to_owned()))
            }
            first => Ok(first),
        }
    }

    async fn open(&self) -> Opened {
        self.hub.peers.read_log(self.reading.request(&self.subject.id, self.wish.follow)).await
    }

    /// Until the client hangs up, there is no more, the application is deleted, or the daemon drains.
    async fn run(mut self, mut outlet: Outlet, first: Opened) {
        let (closed, gone, hub) = (outlet.closed(), self.subject.gone.clone(), Arc::clone(&self.hub));
        let end = tokio::select! {
            ended = self.follow(&mut outlet, first) => match ended {
                Ok(end) => end,
                Err(Hangup) => return,
            },
            () = closed => return,
            () = gone.cancelled() => self.subject.farewell(),
            () = hub.shutdown.draining() => End::Leaving,
        };
        outlet.put(self.wish.form.end(end, self.reading.position()).as_bytes());
        let _ = timeout(LAST_WORD, outlet.flush()).await;
    }

    async fn follow(&mut self, outlet: &mut Outlet, first: Opened) -> Result<End, Hangup> {
        outlet.put(self.wish.form.hello(&self.subject.id).as_bytes());
        let period = Duration::from_millis(self.hub.config.keepalive_ms);
        let mut keepalive = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = Retry::default();
        let mut opened = first;
        loop {
            let ended = match opened {
                Ok(flow) => self.pump(flow, outlet, &mut keepalive, &mut retry).await?,
                Err(status) => Ended::Broke(status),
            };
            match self.after(ended, outlet) {
                After::Nothing(end) => return Ok(end),
                After::More => outlet.flush().await?,
                After::Retry => {
                    outlet.flush().await?;
                    tokio::time::sleep(retry.wait()).await;
                    if keepalive.tick().now_or_never().is_some() {
                        self.keepalive(outlet);
                    }
                }
            }
            opened = self.open().await;
        }
    }

    fn after(&mut self, ended: Ended, outlet: &mut Outlet) -> After {
        let after = match ended {
            Ended::Stands => After::More,
            Ended::Over if self.reading.is_searching() => {
                self.reading.ended();
                return After::More;
            }
            Ended::Over if !self.wish.follow => {
                let rest = self.reading.ended();
                self.tell(rest, outlet);
                return After::Nothing(End::Complete);
            }
            Ended::Over => After::Retry, // a followed log has no end: it was broken off
            Ended::Broke(status) => match status.code() {
                Code::InvalidArgument => After::Nothing(End::Cursor),
                Code::NotFound if !self.wish.follow => After::Nothing(End::Gone),
                Code::NotFound => {
                    self.reading.lost();
                    After::Retry
                }
                _ => After::Retry,
            },
        };
        self.reading.broke();
        after
    }

    /// Passes on one stream of procmgr's.
    async fn pump(
        &mut self,
        mut flow: Flow<ReadLogResponse>,
        outlet: &mut Outlet,
        keepalive: &mut Interval,
        retry: &mut Retry,
    ) -> Result<Ended, Hangup> {
        loop {
            tokio::select! {
                biased;
                _ = keepalive.tick() => self.keepalive(outlet),
                () = tokio::time::sleep(Joiner::HOLD), if self.reading.is_holding() => {
                    let held = self.reading.release();
                    self.tell(held, outlet);
                }
                next = flow.next() => {
                    if let Some(ended) = self.ready(next, &mut flow, outlet, retry) {
                        return Ok(ended);
                    }
                }
            }
            match timeout(STAND, outlet.flush()).await {
                Ok(flushed) => flushed?,
                Err(_) => return Ok(Ended::Stands),
            }
        }
    }

    /// Takes all that is there already, or enough of it to be sent; how the stream ended, if it did.
    fn ready(
        &mut self,
        mut next: Next,
        flow: &mut Flow<ReadLogResponse>,
        outlet: &mut Outlet,
        retry: &mut Retry,
    ) -> Option<Ended> {
        loop {
            match next {
                Some(Ok(said)) => {
                    let told = self.reading.take(said.event);
                    self.tell(told, outlet);
                }
                Some(Err(status)) => return Some(Ended::Broke(status)),
                None => return Some(Ended::Over),
            }
            retry.reset();
            if outlet.is_full() {
                return None;
            }
            next = flow.next().now_or_never()?;
        }
    }

    fn tell(&self, all: Vec<Told>, outlet: &mut Outlet) {
        for told in all {
            match told {
                Told::Line(entry) => outlet.put(&self.wish.form.line(&self.subject.id, &entry)),
                Told::Gap(gap) => outlet.put(self.wish.form.gap(gap.dropped, &gap.position).as_bytes()),
            }
        }
    }

    /// Also a sign that somebody is there: an app whose log is read doesn't expire.
    fn keepalive(&self, outlet: &mut Outlet) {
        let silent = self.reading.passes_over() || self.wish.form == Form::Ndjson;
        let known = !self.reading.is_searching() && !self.reading.position().is_empty();
        let position = (silent && known).then(|| self.reading.position());
        outlet.put(self.wish.form.alive(position).as_bytes());
    }
}
