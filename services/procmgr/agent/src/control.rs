//! The agent's side of the control connection: what it says, from several threads, and the orders that it hears.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, fs::File, thread, time::Duration};

use nexushub_agent::word::{End, MAX_BYTES, Order, Word};

use crate::kills::Kills;

const BEAT: Duration = Duration::from_secs(1);
/// How often, and how far apart, the kernel's log is looked at for who it killed: 50 ms in all.
const LOOKS: u32 = 26;
const PAUSE: Duration = Duration::from_millis(2);
/// An end by SIGKILL: seen directly, or through a shell that ran the app.
const KILLED: [Word; 2] = [Word::Ended(End::Signal(9)), Word::Ended(End::Code(137))];

/// The connection, for saying something.
#[derive(Clone)]
pub(crate) struct Control {
    host: Arc<Mutex<File>>,
    kills: Arc<Mutex<Kills>>,
}

impl Control {
    pub(crate) fn new(socket: File) -> Self {
        Self { host: Arc::new(Mutex::new(socket)), kills: Arc::default() }
    }

    /// Says one thing. Nobody hears it when the host's side is gone, and then this guest soon is too.
    pub(crate) fn say(&self, word: &Word) {
        let _ = held(&self.host).write_all(format!("{word}\n").as_bytes());
    }

    /// Says once a second that this guest lives. Never ends.
    pub(crate) fn beat(&self) {
        let mut told = 0;
        loop {
            thread::sleep(BEAT);
            let (memory_bytes, processes) = usage().unwrap_or_default();
            self.say(&Word::Alive { memory_bytes, processes });
            let kills = held(&self.kills).count();
            if kills != told {
                self.say(&Word::OomKills(kills));
                told = kills;
            }
        }
    }

    /// Says the last word, and before it what may be its reason.
    pub(crate) fn say_last(&self, last: &Word) {
        let looks = if KILLED.contains(last) { LOOKS } else { 1 };
        match held(&self.kills).count_after_a_kill(looks, || thread::sleep(PAUSE)) {
            0 => {}
            kills => self.say(&Word::OomKills(kills)),
        }
        self.say(last);
    }
}

/// Calls back for each order until the connection ends.
pub(crate) fn orders(socket: File, mut obey: impl FnMut(Order)) {
    let mut lines = BufReader::new(socket);
    let mut line = String::new();
    while (&mut lines).take(MAX_BYTES as u64).read_line(&mut line).is_ok_and(|length| length > 0) {
        if let Ok(order) = line.trim_end().parse() {
            obey(order);
        }
        line.clear();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn usage() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    let used =
        field("MemTotal:").unwrap_or_default().saturating_sub(field("MemAvailable:").unwrap_or_default());
    let load = fs::read_to_string("/proc/loadavg")?; // 0.00 0.00 0.00 1/57 63
    let processes = load.split(['/', ' ']).nth(4).and_then(|count| count.parse().ok());
    Ok((used << 10, processes.unwrap_or_default()))
}
