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
    applog::{BadWish, Joiner, Ring},
    retry::Retry,
};
use nexushub_proto::procmgr::{LogEntry, ReadLogRequest, ReadLogResponse, read_log_response::Event};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, timeout},
};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub(crate) use self::wish::{TAIL_MAX, Wish};
use self::{
    form::{End, Form},
    wish::After,
};
use crate::{
    applications::{App, Hub, Reading},
    error::ApiError,
    outlet::{Hangup, Outlet},
    peers::Flow,
    record::{Wanted, now_ms},
};

/// How long a client may take nothing before procmgr's stream is let go of.
const STAND: Duration = Duration::from_millis(500);
/// How long the word that a stream ends waits for a client that takes nothing.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Whose log is streamed.
struct Subject {
    id: String,
    /// When it is cancelled there is nobody left whose log it would be.
    gone: CancellationToken,
    /// A developer's application, which doesn't expire while its log is read.
    reading: Option<Reading>,
}

impl Subject {
    /// Why it is gone.
    fn farewell(&self) -> End {
        let expired = self.reading.as_ref().is_some_and(|reading| reading.app.state().expired);
        if expired { End::Expired } else { End::Deleted }
    }
}

/// Opens the stream of a developer's application.
pub(crate) async fn stream(
    hub: Arc<Hub>,
    app: Arc<App>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let wish = Wish::read(uri, headers, hub.config.log_history, now_ms())?;
    let place = place(&hub)?;
    app.touch();
    let wanted = app.state().record.wanted;
    if wanted == Wanted::Nothing {
        return Err(ApiError::NotRunning);
    }
    let reading = Some(Reading::begin(&hub, &app));
    let subject = Subject { id: app.id.clone(), gone: app.gone.clone(), reading };
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
    let place = place(&hub)?;
    let subject = Subject { id, gone: CancellationToken::new(), reading: None };
    let mut tail = Tail::new(hub, subject, wish);
    let first = tail.begin().await?;
    if first.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Err(ApiError::NoLog);
    }
    Ok(start(tail, first, place))
}

fn place(hub: &Hub) -> Result<OwnedSemaphorePermit, ApiError> {
    let limit = hub.config.max_log_streams;
    Arc::clone(&hub.streams).try_acquire_owned().map_err(|_| ApiError::TooManyStreams(limit))
}

fn start(tail: Tail, first: Opened, place: OwnedSemaphorePermit) -> Response {
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

/// One client's stream.
struct Tail {
    hub: Arc<Hub>,
    subject: Subject,
    wish: Wish,
    /// After which line to go on.
    position: String,
    /// While there is no position: begin with so many of the newest entries; 0 = with all.
    newest: u32,
    /// While it is searched for where to begin.
    ring: Option<Ring>,
    joiner: Joiner,
}

impl Tail {
    fn new(hub: Arc<Hub>, subject: Subject, wish: Wish) -> Self {
        let joiner = Joiner::new(hub.config.max_log_line_bytes);
        Self { hub, subject, wish, position: String::new(), newest: 0, ring: None, joiner }
    }

    /// Opens the first stream, from where the client left off or from the newest lines.
    async fn begin(&mut self) -> Result<Opened, ApiError> {
        let first = self.first().await?;
        match first {
            Err(status) if status.code() == Code::ResourceExhausted => {
                Err(ApiError::Crowded(status.message().to_owned()))
            }
            first => Ok(first),
        }
    }

    async fn first(&mut self) -> Result<Opened, ApiError> {
        let Some(After { cursor, by_itself }) = self.wish.after.clone() else {
            self.anew();
            return Ok(self.open().await);
        };
        self.position = cursor;
        self.wish.since = None;
        let first = self.open().await;
        if !first.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument) {
            return Ok(first);
        }
        if !by_itself {
            return Err(ApiError::Wish(BadWish { what: "after", may_be: "a cursor of this log".to_owned() }));
        }
        self.anew();
        Ok(self.open().await)
    }

    /// From the newest lines. Procmgr finds them if all are wanted; otherwise they are searched for here.
    fn anew(&mut self) {
        self.position.clear();
        let all_wanted = self.wish.filter.is_open() && self.wish.since.is_none();
        match self.wish.tail {
            None => self.newest = 0,
            Some(count) if all_wanted && count > 0 => self.newest = count,
            Some(count) => {
                self.newest = u32::from(count == 0); // to pass over one line is enough to be behind it
                self.ring = Some(Ring::new(usize::try_from(count).unwrap_or(usize::MAX)));
            }
        }
    }

    async fn open(&self) -> Opened {
        let (id, position) = (self.subject.id.clone(), self.position.clone());
        let follow = self.wish.follow && self.ring.is_none();
        self.hub.peers.read_log(ReadLogRequest { id, after: 0, tail: self.newest, follow, position }).await
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
        outlet.put(self.wish.form.end(end, &self.position).as_bytes());
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
            let searched = self.ring.is_some();
            let ended = match opened {
                Ok(flow) => self.pump(flow, outlet, &mut keepalive, &mut retry).await?,
                Err(status) => Ended::Broke(status),
            };
            if let Some(end) = self.after(&ended, outlet) {
                return Ok(end);
            }
            outlet.flush().await?;
            let found = searched && self.ring.is_none();
            if !found && !matches!(ended, Ended::Stands) {
                tokio::time::sleep(retry.wait()).await;
                if keepalive.tick().now_or_never().is_some() {
                    self.keepalive(outlet);
                }
            }
            opened = self.open().await;
        }
    }

    /// What follows from the end of one stream of procmgr's: the end of this one, or that it goes on from the position.
    fn after(&mut self, ended: &Ended, outlet: &mut Outlet) -> Option<End> {
        match ended {
            // A followed log has no end: it was broken off.
            Ended::Over if self.wish.follow && self.ring.is_none() => {}
            Ended::Over => {
                let held = self.joiner.flush();
                self.take(held, outlet);
                let Some(ring) = self.ring.take() else { return Some(End::Complete) };
                self.position = ring.start(std::mem::take(&mut self.position));
                self.newest = 0;
            }
            Ended::Broke(status) => match status.code() {
                Code::InvalidArgument => return Some(End::Cursor),
                Code::NotFound if !self.wish.follow => return Some(End::Gone),
                // The next one under this name begins anew.
                Code::NotFound => self.position.clear(),
                _ => {}
            },
            Ended::Stands => {}
        }
        self.joiner.forget(); // read again from the position
        None
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
                () = tokio::time::sleep(Joiner::HOLD), if self.joiner.is_holding() => {
                    let held = self.joiner.flush();
                    self.take(held, outlet);
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
                Some(Ok(said)) => self.event(said.event, outlet),
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

    fn event(&mut self, event: Option<Event>, outlet: &mut Outlet) {
        match event {
            Some(Event::Entry(entry)) => {
                let whole = self.joiner.push(entry);
                self.take(whole, outlet);
            }
            Some(Event::Gap(gap)) => {
                let held = self.joiner.flush(); // all of it lies before the gap
                self.take(held, outlet);
                if self.ring.is_none() {
                    outlet.put(self.wish.form.gap(gap.dropped, &gap.position).as_bytes());
                }
                self.passed(gap.position);
            }
            None => {}
        }
    }

    fn take(&mut self, entries: Vec<LogEntry>, outlet: &mut Outlet) {
        for entry in entries {
            if self.wants(&entry) {
                match &mut self.ring {
                    Some(ring) => ring.found(&self.position),
                    None => outlet.put(&self.wish.form.line(&entry)),
                }
            }
            self.passed(entry.position);
        }
    }

    /// `since` is where to begin: after the first line of its time or later no clock that is set back hides one.
    fn wants(&mut self, entry: &LogEntry) -> bool {
        if self.wish.since.is_some_and(|since| entry.unix_ms < since) {
            return false;
        }
        self.wish.since = None;
        self.wish.filter.passes(entry)
    }

    fn passed(&mut self, position: String) {
        self.position = position;
        self.newest = 0;
    }

    /// Also a sign that somebody is there: an app whose log is read doesn't expire.
    fn keepalive(&self, outlet: &mut Outlet) {
        let passes_over = !self.wish.filter.is_open() || self.wish.since.is_some();
        let told = (passes_over || self.wish.form == Form::Ndjson) && self.ring.is_none();
        let position = Some(self.position.as_str()).filter(|position| told && !position.is_empty());
        outlet.put(self.wish.form.alive(position).as_bytes());
    }
}
