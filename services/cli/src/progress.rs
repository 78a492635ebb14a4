//! How far something is that takes long: a line that moves on standard error, where that is a terminal, and is gone when it is over.
//! It makes way for whatever is written meanwhile, and comes back below that.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ratatui::crossterm::terminal;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::table::bytes;

/// What is over before that needs no line.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often the line moves.
const EVERY: Duration = Duration::from_millis(100);
/// Characters of the bar.
const BAR: usize = 24;

/// Whether the line is on the terminal now.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Waits, and shows how many bytes of `total` were sent; `sent` counts them.
pub(crate) async fn sending<T>(what: &str, sent: &AtomicU64, total: u64, work: impl Future<Output = T>) -> T {
    let before = sent.load(Ordering::Relaxed);
    let far = |elapsed| upload(what, sent.load(Ordering::Relaxed).saturating_sub(before), total, elapsed);
    shown(work, far).await
}

/// Waits, and shows for how long already.
pub(crate) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    shown(work, |elapsed: Duration| format!("{what} ({} s)", elapsed.as_secs())).await
}

async fn shown<T>(work: impl Future<Output = T>, line: impl Fn(Duration) -> String) -> T {
    let mut work = std::pin::pin!(work);
    if !stderr().is_terminal() {
        return work.await;
    }
    let began = Instant::now();
    let mut ticks = interval_at(tokio::time::Instant::now() + PATIENCE, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let _gone = Gone;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => draw(&line(began.elapsed())),
        }
    }
}

fn draw(text: &str) {
    SHOWN.store(!text.is_empty(), Ordering::Relaxed);
    let width = terminal::size().map_or(80, |(width, _)| width.into());
    let _ = write!(stderr(), "\r\u{1b}[K{}", cut(text, width)); // a terminal that is gone needs none
    let _ = stderr().flush();
}

/// Takes the line away before something else is written.
pub(crate) fn make_way() {
    if SHOWN.load(Ordering::Relaxed) {
        draw("");
    }
}

/// As much of a line as a terminal has room for: one that is broken could not be taken away.
fn cut(text: &str, width: usize) -> &str {
    let end = text.char_indices().nth(width.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Takes the line away, also when nobody waits for the end.
struct Gone;

impl Drop for Gone {
    fn drop(&mut self) {
        make_way();
    }
}

/// Bar, bytes, rate and time left. What goes over the wire is a little more than the bytes: it never passes the total.
fn upload(what: &str, sent: u64, total: u64, elapsed: Duration) -> String {
    let sent = sent.min(total);
    let share = if total == 0 { 1.0 } else { sent as f64 / total as f64 };
    let full = (share * BAR as f64) as usize;
    let rate = sent as f64 / elapsed.as_secs_f64().max(0.001);
    let left = if rate >= 1.0 {
        format!("{:.0} s left", (total - sent) as f64 / rate)
    } else {
        "waiting".to_owned()
    };
    let (bar, rest) = ("#".repeat(full), "-".repeat(BAR - full));
    let percent = share * 100.0;
    format!(
        "{what} [{bar}{rest}] {percent:.0} %  {} of {}  {}/s  {left}",
        bytes(sent),
        bytes(total),
        bytes(rate as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_how_fast_and_how_long_still() {
        let line = upload("uploading", 3 << 20, 12 << 20, Duration::from_secs(3));
        let expected = "uploading [######------------------] 25 %  3.0 MiB of 12.0 MiB  1.0 MiB/s  9 s left";
        assert_eq!(line, expected);
        assert!(upload("x", 0, 12 << 20, Duration::ZERO).ends_with("waiting"));
        assert!(
            upload("x", 13 << 20, 12 << 20, Duration::from_secs(1)).contains("100 %  12.0 MiB of 12.0 MiB")
        );
        assert!(upload("x", 0, 0, Duration::from_secs(1)).contains("100 %"));
    }

    #[test]
    fn a_line_is_never_broken() {
        assert_eq!((cut("äbcd", 3), cut("äbcd", 9), cut("äbcd", 0)), ("äb", "äbcd", ""));
    }

    #[tokio::test]
    async fn what_is_waited_for_comes_through() {
        let sent = AtomicU64::new(0);
        assert_eq!(sending("x", &sent, 1, async { 7 }).await + waiting("x", async { 1 }).await, 8);
    }
}
