//! What a platform's processes log, line by line, and waiting for a line.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
};

use serde_json::Value;
use tokio::sync::watch;

use crate::{HANG, soon};

/// All lines so far; shared by the threads that read them and the test.
#[derive(Debug, Clone)]
pub struct Journal {
    lines: Arc<Mutex<Vec<String>>>,
    count: Arc<watch::Sender<usize>>,
    readers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { lines: Arc::default(), count: Arc::new(watch::channel(0).0), readers: Arc::default() }
    }
}

impl Journal {
    /// Reads a pipe to its end, in a thread of its own.
    pub fn collect(&self, pipe: impl Read + Send + 'static) {
        let journal = self.clone();
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                journal.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        self.readers.lock().unwrap().push(reader);
    }

    /// Waits until what was written to the pipes so far has been read to their ends.
    ///
    /// # Panics
    /// When somebody holds one open for ever.
    pub fn is_whole(&self) {
        let readers = std::mem::take(&mut *self.readers.lock().unwrap());
        let (sender, joined) = mpsc::channel();
        thread::spawn(move || sender.send(readers.into_iter().all(|reader| reader.join().is_ok())));
        assert!(joined.recv_timeout(HANG).expect("the pipes end with their writers"), "a reader panicked");
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap();
        lines.push(line);
        self.count.send_replace(lines.len());
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Every line so far that is a JSON object.
    #[must_use]
    pub fn entries(&self) -> Vec<Value> {
        self.lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect()
    }

    /// How many lines there are: the place from which to look for what comes next.
    #[must_use]
    pub fn position(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Waits for a line, at or after a position, that pleases.
    ///
    /// # Panics
    /// When none comes.
    pub async fn wait(&self, from: usize, what: &str, pleases: impl Fn(&str) -> bool) -> String {
        let mut count = self.count.subscribe();
        let find = async {
            let mut next = from;
            loop {
                count.borrow_and_update();
                let lines = self.lines();
                if let Some(line) = lines.iter().skip(next).find(|line| pleases(line)) {
                    return line.clone();
                }
                next = lines.len().max(from);
                count.changed().await.expect("the journal holds the sender");
            }
        };
        soon(what, find).await
    }
}
