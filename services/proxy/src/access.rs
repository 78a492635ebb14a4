//! One request's record: counted when it begins, counted and logged when its answer has ended or it was given up.

use std::{net::IpAddr, sync::Arc, time::Instant};

use http::{HeaderValue, Method, Uri};

use crate::{
    counters::{Counters, Stopped},
    door::{Caller, Turn},
    headers::trace_id,
    link::Link,
    table::Route,
};

/// A request under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Record {
    counters: Arc<Counters>,
    link: Arc<Link>,
    id: HeaderValue,
    /// Whom a trusted proxy passed it on for.
    client: Option<IpAddr>,
    /// The trace that it belongs to, as `traceparent` says it.
    trace: Option<HeaderValue>,
    method: Method,
    uri: Uri,
    began: Instant,
    host: Option<HeaderValue>,
    route: Option<Arc<Route>>,
    _turn: Option<Turn>,
    /// The how manieth request it is.
    number: u64,
    /// Of so many that went well one is written; 0 = none, nor of the others.
    log_every: u32,
    /// 0 = no answer began.
    status: u16,
    bytes: u64,
    complete: bool,
    error: Option<String>,
}

impl Record {
    /// Begins it. It lies in a box: it moves with the request and then with the answer, and each move would cost.
    pub(crate) fn begin(
        counters: Arc<Counters>,
        link: Arc<Link>,
        id: HeaderValue,
        line: (Method, Uri),
        log_every: u32,
    ) -> Box<Self> {
        counters.requests.up();
        let number = counters.requests.get();
        counters.requests_in_flight.up();
        link.begin();
        let (method, uri) = line;
        Box::new(Self {
            counters,
            link,
            id,
            client: None,
            trace: None,
            method,
            uri,
            began: Instant::now(),
            host: None,
            route: None,
            _turn: None,
            number,
            log_every,
            status: 0,
            bytes: 0,
            complete: false,
            error: None,
        })
    }

    /// Whether a line is written about it, where lines are wanted: about what went wrong always, about the rest in turn.
    fn is_told(&self) -> bool {
        let went_wrong = self.error.is_some() || self.status >= 500 || !self.complete;
        self.log_every > 0 && (went_wrong || self.number.is_multiple_of(self.log_every.into()))
    }

    /// Whose request it is.
    pub(crate) fn came_from(&mut self, client: IpAddr) {
        self.client = self.link.trusted.then_some(client);
    }

    /// The trace that it belongs to.
    pub(crate) fn in_trace(&mut self, parent: HeaderValue) {
        self.trace = Some(parent);
    }

    /// Its turn at the door that it came by, which it keeps to its end.
    pub(crate) fn in_turn(&mut self, turn: Turn) {
        self._turn = Some(turn);
    }

    /// The host that it is for.
    pub(crate) fn for_host(&mut self, authority: &HeaderValue) {
        self.host = Some(authority.clone());
    }

    /// The instance that answers it.
    pub(crate) fn for_route(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    /// The answer's status.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
        self.counters.answered(status);
    }

    /// Bytes of the answer's body went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// This limit was reached in the middle of the answer.
    pub(crate) fn stopped(&self, by: Stopped) {
        self.counters.stop(by);
    }

    /// What went wrong, for the log.
    pub(crate) fn broke(&mut self, error: &dyn std::error::Error) {
        self.error = Some(nexushub_chassis::chain(error));
    }

    /// Ends it; `complete` if the client was given the whole answer.
    pub(crate) fn close(mut self: Box<Self>, complete: bool) {
        self.complete = complete;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.counters.requests_in_flight.down();
        self.link.end();
        let took = self.began.elapsed();
        if let Some(route) = &self.route {
            route.traffic.count(self.status, took, self.bytes);
        }
        if !self.is_told() {
            return;
        }
        let text = |value: &Option<HeaderValue>| {
            value.as_ref().and_then(|value| value.to_str().ok().map(str::to_owned))
        };
        let status = (self.status != 0).then_some(self.status);
        tracing::info!(
            host = text(&self.host).as_deref().unwrap_or_default(),
            method = %self.method,
            path = self.uri.path(),
            status,
            elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            bytes = self.bytes,
            instance = self.route.as_ref().map(|route| route.entry.id.as_str()),
            caller = self.link.door().caller().map(Caller::id),
            peer = %self.link.peer,
            client = self.client.map(tracing::field::display),
            request_id = self.id.to_str().unwrap_or_default(),
            aborted = (!self.complete).then_some(true),
            error = self.error.as_deref(),
            trace_id = self.trace.as_ref().and_then(trace_id),
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_counts_its_request_for_as_long_as_it_lives() {
        let counters = Arc::new(Counters::default());
        let link =
            Link::new("127.0.0.1:1".parse().unwrap(), None, true, crate::door::Place::single()).trust(false);
        let line = (Method::GET, Uri::from_static("/"));
        let mut record =
            Record::begin(Arc::clone(&counters), Arc::clone(&link), HeaderValue::from_static("id"), line, 0);
        assert_eq!((counters.requests.get(), counters.requests_in_flight.get()), (1, 1));
        assert!(!link.is_quiet());
        record.answered(503);
        record.close(true);
        assert_eq!((counters.requests_in_flight.get(), counters.responses_503.get()), (0, 1));
        assert!(link.is_quiet());
    }

    #[test]
    fn of_what_goes_well_a_part_is_told_and_all_of_what_does_not() {
        let counters = Arc::new(Counters::default());
        let told = |status: u16, complete: bool, every: u32| {
            let error = (status == 404).then(|| "its app broke".to_owned());
            let link = Link::new("127.0.0.1:1".parse().unwrap(), None, true, crate::door::Place::single());
            let (id, line) = (HeaderValue::from_static("id"), (Method::GET, Uri::from_static("/")));
            let mut record = Record::begin(Arc::clone(&counters), link.trust(false), id, line, every);
            (record.status, record.complete, record.error) = (status, complete, error);
            record.is_told()
        };
        assert_eq!((0..10).filter(|_| told(200, true, 5)).count(), 2);
        assert!((0..10).all(|_| told(502, true, 5) && told(200, false, 5) && told(404, true, 5)));
        assert!((0..10).all(|_| !told(502, true, 0) && !told(404, true, 0)), "off is off");
    }
}
