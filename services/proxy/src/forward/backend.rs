//! A request and its backend: a place there, sending, and sending again where that can't do it twice; what is noted of how those
//! stand who share their requests; and who is tried next where one of them does not even take a connection.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Response, Version, response};
use tokio::time::{Instant, timeout_at};

use super::Exchange;
use crate::{
    body::{Progress, RequestBody, ResponseBody},
    clock,
    error::Failure,
    h1::{
        client::{Broke, Call},
        outgoing::Outgoing,
    },
    h2c, headers,
    pool::{Lease, Pool, Unavailable, streams},
    refusal::Refusal,
    table::Route,
};

/// A place at a backend.
pub(super) enum Taken {
    /// A connection of one's own.
    Wire(Lease),
    /// A stream of a shared one.
    Stream(streams::Lease),
}

impl Exchange {
    /// A place for this request; for what can't be repeated on a connection that is surely open, since there is no second try.
    pub(super) async fn take(&self, pool: &Arc<Pool>) -> Result<Taken, Unavailable> {
        if pool.is_h2c() {
            return Box::pin(pool.take_stream()).await.map(Taken::Stream);
        }
        let lease = pool.take().await?;
        if !lease.reused || self.is_repeatable() || lease.is_quiet() {
            return Ok(Taken::Wire(lease));
        }
        drop(lease); // its turn is taken anew
        pool.take_fresh().await.map(Taken::Wire)
    }

    /// Sends the prepared request and makes the client's answer of the backend's. `route`: whose it is, unless the platform's.
    pub(super) async fn exchange(
        &mut self,
        route: Option<&Route>,
        pool: &Arc<Pool>,
        taken: Taken,
    ) -> Result<Response<ResponseBody>, Refusal> {
        match taken {
            Taken::Wire(lease) => {
                let answered = self.send(pool, lease).await;
                self.note(route, answered.as_ref().err());
                self.receive(answered)
            }
            Taken::Stream(lease) => {
                let answered = Box::pin(self.send_stream(pool, lease)).await;
                self.note(route, answered.as_ref().err());
                let (mut parts, call) = answered.map_err(|failure| self.fail(&failure))?;
                headers::toward_client(&mut parts.headers, None);
                parts.version = Version::HTTP_11;
                Ok(Response::from_parts(parts, ResponseBody::stream(call)))
            }
        }
    }

    /// Whether it may be sent again although an app may have seen it.
    fn is_repeatable(&self) -> bool {
        self.body.is_empty() && self.upgrade.is_none() && self.parts.method.is_idempotent()
    }

    /// Sends the prepared request, again on a fresh connection where that is safe. What is sent goes into its box at once, so that
    /// nothing of it lies in what is waited for.
    fn send(
        &mut self,
        pool: &Arc<Pool>,
        lease: Lease,
    ) -> impl Future<Output = Result<(response::Parts, Box<Call>), Failure>> {
        let repeatable = lease.reused && self.is_repeatable();
        let reused = lease.reused;
        let body = std::mem::replace(&mut self.body, RequestBody::Empty);
        let call =
            Call::begin(lease, self.parts.method.clone(), Outgoing::request(&self.parts, &self.told, body));
        async move {
            let (error, call) = match self.send_once(call).await? {
                Ok(answered) => return Ok(answered),
                Err(broke) => broke,
            };
            let Broke::Closed(closed) = error else { return Err(error.into()) };
            let (unheard, unsent) = call.give_up();
            let again = match unsent {
                Some(_) if !reused => return Err(Unavailable::Connect(closed).into()),
                Some(request) => request,
                None if repeatable && unheard => {
                    Outgoing::request(&self.parts, &self.told, RequestBody::Empty)
                }
                None => return Err(Failure::Broke(Broke::Closed(closed))),
            };
            Box::pin(self.send_again(pool, again)).await
        }
    }

    async fn send_again(
        &self,
        pool: &Arc<Pool>,
        request: Outgoing<RequestBody>,
    ) -> Result<(response::Parts, Box<Call>), Failure> {
        let call = Call::begin(pool.take_fresh().await?, self.parts.method.clone(), request);
        self.send_once(call).await?.map_err(|(error, _)| error.into())
    }

    /// Sends it once and waits for the head of the answer.
    async fn send_once(
        &self,
        mut call: Box<Call>,
    ) -> Result<Result<(response::Parts, Box<Call>), (Broke, Box<Call>)>, Failure> {
        let (shared, whole) = (call.progress(), Progress::whole());
        let progress = shared.as_deref().unwrap_or(&whole);
        let head = self.await_head(progress, |cx| {
            let head = call.poll_head(cx);
            self.hint(call.take_hints());
            head
        });
        match head.await? {
            Ok(parts) => Ok(Ok((parts, call))),
            Err(error) => Ok(Err((error, call))),
        }
    }

    /// The same to an app that speaks h2c, which can say that it has not touched a request.
    async fn send_stream(
        &mut self,
        pool: &Arc<Pool>,
        mut lease: streams::Lease,
    ) -> Result<(response::Parts, Box<h2c::Call>), Failure> {
        let repeatable = self.is_repeatable();
        let mut body = std::mem::replace(&mut self.body, RequestBody::Empty);
        let mut tries = 2;
        loop {
            tries -= 1;
            let request = h2c::request(&self.parts, &self.told).map_err(Broke::Malformed)?;
            let (shared, whole) = (body.progress(), Progress::whole());
            let progress = shared.as_deref().unwrap_or(&whole);
            let broke = match h2c::Call::begin(lease, request, body) {
                Err((broke, unsent)) => (broke, Some(unsent)),
                Ok(mut call) => {
                    let head = self.await_head(progress, |cx| {
                        let head = call.poll_head(cx);
                        self.hint(call.take_hints());
                        head
                    });
                    match head.await {
                        Ok(Ok(parts)) => return Ok((parts, call)),
                        Ok(Err(broke)) => {
                            let unseen = call.give_up(&broke, repeatable);
                            (broke, unseen)
                        }
                        Err(failure) => {
                            call.distrust();
                            return Err(failure);
                        }
                    }
                }
            };
            body = match broke {
                (_, Some(unseen)) if tries > 0 => unseen,
                (broke, _) => return Err(broke.into()),
            };
            lease = pool.take_stream().await?;
        }
    }

    /// Waits for the head of an answer, as long as the request's body makes progress or the app is within its time.
    async fn await_head<T>(
        &self,
        progress: &Progress,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Failure> {
        let (first_byte, body_idle) = (self.first_byte, self.proxy.timing.body_idle);
        progress.step(); // what it waited for until now was not the backend's or the client's doing
        loop {
            let deadline = progress.deadline(first_byte, body_idle);
            match timeout_at(deadline, poll_fn(&mut poll)).await {
                Ok(done) => return Ok(done),
                Err(_) if progress.deadline(first_byte, body_idle) > Instant::now() => {}
                Err(_) if progress.is_done() => return Err(Failure::Slow),
                Err(_) => return Err(Failure::SlowClient),
            }
        }
    }

    /// Passes on what an app hints at.
    fn hint(&self, hints: Option<Box<HeaderMap>>) {
        if let Some(hints) = hints.filter(|hints| !hints.is_empty()) {
            self.link.hint(hints);
        }
    }

    /// What became of a request counts for how its backend stands, if that shares its requests with others.
    fn note(&self, route: Option<&Route>, failure: Option<&Failure>) {
        let Some(route) = route.filter(|route| !route.entry.rules.group.is_empty()) else { return };
        let left_out = match failure {
            None => {
                route.standing.answered();
                None
            }
            Some(failure) if failure.is_backends() => route.standing.failed(clock::now_ms()),
            Some(_) => None,
        };
        if let Some(for_ms) = left_out {
            self.proxy.counters.ejections.up();
            tracing::warn!(instance = route.entry.id, for_ms, "a failing backend is left out");
        }
    }

    /// Nobody takes a connection at this backend: whether somebody else is to be tried, of those who share its requests.
    pub(super) fn try_another(&mut self, route: &Arc<Route>, error: &Unavailable) -> bool {
        let Unavailable::Connect(_) = error else { return false };
        if route.entry.rules.group.is_empty() || self.tried.iter().any(|one| one.entry.id == route.entry.id) {
            return false;
        }
        self.note(
            Some(route),
            Some(&Failure::Unavailable(Unavailable::Connect(std::io::ErrorKind::Other.into()))),
        );
        self.tried.push(Arc::clone(route));
        true
    }
}
