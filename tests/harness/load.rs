//! Steady HTTPS load: kept connections and fresh ones, at an even pace, with every loss told by its kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::{sync::watch, task::JoinSet, time};

use crate::{Failure, Https, Protocol, https::Connection, soon};

/// Pace of one client: about forty requests a second.
const PACE: Duration = Duration::from_millis(25);

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Answered 200.
    pub ok: u64,
    /// Nobody listened.
    pub refused: u64,
    /// Lost on the way.
    pub in_flight: u64,
    /// Sent again, because a kept connection was closed before an answer began.
    pub retried: u64,
    /// Other answers, by status.
    pub other: BTreeMap<u16, u64>,
    /// The processes that answered.
    pub pids: BTreeSet<u64>,
    /// The first losses, in words.
    pub losses: Vec<String>,
    /// Good answers a second, from the first client's start to the end.
    pub rate: f64,
}

impl Tally {
    /// Requests without a good answer.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.refused + self.in_flight + self.other.values().sum::<u64>()
    }

    fn lose(&mut self, failure: &Failure) {
        match failure {
            Failure::Refused => self.refused += 1,
            Failure::Unsent(_) | Failure::Cut(_) | Failure::InFlight(_) => self.in_flight += 1,
        }
        if self.losses.len() < 20 {
            self.losses.push(format!("{failure:?}"));
        }
    }
}

/// The clients, until they are told to stop.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    answered: watch::Receiver<u64>,
    tally: Arc<Mutex<Tally>>,
    clients: JoinSet<()>,
    began: time::Instant,
}

struct Client {
    https: Https,
    host: String,
    tally: Arc<Mutex<Tally>>,
    answered: watch::Sender<u64>,
}

impl Load {
    /// Clients of one host: so many on kept connections (half of them h2), so many with a fresh one for each request.
    #[must_use]
    pub fn start(https: &Https, host: &str, kept: usize, fresh: usize) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (answered_sender, answered) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..kept + fresh {
            let (tally, answered) = (Arc::clone(&tally), answered_sender.clone());
            let client = Client { https: https.clone(), host: host.to_owned(), tally, answered };
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            clients.spawn(client.run(protocol, number < kept, stopped.clone()));
        }
        Self { stop, answered, tally, clients, began: time::Instant::now() }
    }

    /// Waits until so many more requests were answered than now, however long that takes while there are answers.
    ///
    /// # Panics
    /// When there aren't.
    pub async fn goes_on(&self, more: u64) {
        let mut answered = self.answered.clone();
        let goal = *answered.borrow_and_update() + more;
        while *answered.borrow_and_update() < goal {
            soon("load is answered", answered.changed()).await.expect("clients run until they are stopped");
        }
    }

    /// What became of the requests so far.
    ///
    /// # Panics
    /// When a client did.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Ends the load: each client finishes its request.
    ///
    /// # Panics
    /// When a client did.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        while let Some(client) = soon("load ends", self.clients.join_next()).await {
            client.unwrap();
        }
        let tally = self.tally();
        Tally { rate: tally.ok as f64 / self.began.elapsed().as_secs_f64(), ..tally }
    }
}

impl Client {
    async fn run(self, protocol: Protocol, keeps: bool, mut stopped: watch::Receiver<bool>) {
        let mut pace = time::interval(PACE);
        pace.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut connection = None;
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return,
                _ = pace.tick() => {}
            }
            let answer = self.once(protocol, &mut connection).await;
            if !keeps || answer.is_err() {
                connection = None;
            }
            self.count(answer);
        }
    }

    /// One request; a connection that is closed or goes away before it took the request is made anew, as every client does.
    async fn once(
        &self,
        protocol: Protocol,
        kept: &mut Option<Connection>,
    ) -> Result<crate::Answer, Failure> {
        if let Some(connection) = kept {
            match connection.send(request()).await {
                Err(Failure::Unsent(_)) => {}
                Err(Failure::Cut(_)) => self.tally.lock().unwrap().retried += 1,
                other => return other,
            }
        }
        loop {
            let mut connection = self.https.open(protocol, &self.host).await?;
            match connection.send(request()).await {
                // Who took it on goes away in peace, as HTTP/2 can say at once: whoever comes next takes the next one. By HTTP/1.1 a
                // first request is always served.
                Err(Failure::Unsent(_)) if protocol == Protocol::Http2 => {}
                answer => {
                    *kept = Some(connection);
                    return answer;
                }
            }
        }
    }

    fn count(&self, answer: Result<crate::Answer, Failure>) {
        let mut tally = self.tally.lock().unwrap();
        match answer {
            Ok(answer) if answer.status == 200 => {
                tally.ok += 1;
                tally.pids.extend(answer.json()["pid"].as_u64());
                self.answered.send_modify(|count| *count += 1);
            }
            Ok(answer) => {
                *tally.other.entry(answer.status.as_u16()).or_default() += 1;
                if tally.losses.len() < 20 {
                    tally.losses.push(format!("{} {}", answer.status, answer.text()));
                }
            }
            Err(failure) => tally.lose(&failure),
        }
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::get("/").body(Full::default()).expect("a plain request")
}
