//! A line of the audit log, and what makes it one. Pure.

use nexushub_launch::secret;
use serde::{Deserialize, Serialize};

use super::{Event, Outcome};

/// What the first line of all follows.
pub(super) const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What stands between a line's text and its digest, and after it.
const SUM: &str = ",\"sum\":\"";
const END: &str = "\"}";
/// Digits of a digest.
const DIGITS: usize = START.len();
/// Longest value of a field, in bytes; of a longer one its beginning is kept.
const LONGEST: usize = 1024;

/// A line: what was done, and the digest of the line before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// When, RFC 3339.
    pub ts: String,
    /// Who noted it.
    pub daemon: String,
    /// Who did it.
    pub who: String,
    /// What.
    pub what: String,
    /// To what.
    pub object: String,
    /// Where it came from.
    pub from: String,
    /// `ok`, `refused` or `failed`.
    pub result: String,
    /// What else there is to say.
    pub detail: String,
    /// The digest of the line before it.
    pub prev: String,
}

impl Entry {
    pub(super) fn new(ts: String, daemon: &str, event: Event) -> Self {
        let Event { who, what, object, from, outcome, detail } = event;
        let result = match outcome {
            Outcome::Done => "ok",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        };
        let [who, object, from, detail] = [who, object, from, detail].map(cut);
        let (daemon, what, result) = (daemon.to_owned(), what.to_owned(), result.to_owned());
        Self { ts, daemon, who, what, object, from, result, detail, prev: String::new() }
    }

    /// Its line, after the one of this digest; and its own digest.
    pub(super) fn line(mut self, prev: &str) -> (String, String) {
        prev.clone_into(&mut self.prev);
        let text = serde_json::to_string(&self).expect("texts can be written as JSON");
        let sum = digest(&text);
        let open = text.strip_suffix('}').expect("an object ends with a brace");
        (format!("{open}{SUM}{sum}{END}\n"), sum)
    }
}

/// What a line says, without its end, and its digest; or why it is none that was written here.
pub(super) fn read(line: &[u8]) -> Result<(Entry, String), &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    let not_ours = "it has no digest of its own";
    let (open, sum) = line
        .strip_suffix(END)
        .and_then(|rest| rest.split_at_checked(rest.len().checked_sub(DIGITS)?))
        .ok_or(not_ours)?;
    let open = open.strip_suffix(SUM).ok_or(not_ours)?;
    if digest(&format!("{open}}}")) != sum {
        return Err("it is not what was written");
    }
    let entry = serde_json::from_str(line).map_err(|_| "it is no entry")?;
    Ok((entry, sum.to_owned()))
}

fn digest(text: &str) -> String {
    secret::hex(&secret::digest(text))
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

/// The digest of a line that is none of ours, so that what follows it can be told from what does not.
pub(super) fn sum_of(line: &[u8]) -> String {
    digest(&String::from_utf8_lossy(line))
}
