//! How far something is that takes long: a line that moves on standard error, where that is a terminal that can, and is gone when it is
//! over.
//! It makes way for whatever is written meanwhile, and comes back below that.

use std::{
    env,
    ffi::OsStr,
    io::{IsTerminal, Write, stderr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ratatui::{crossterm::terminal, style::Style, text::Span};
use tokio::time::{MissedTickBehavior, interval_at};

use crate::{out, table::bytes};

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
    if !is_shown(stderr().is_terminal(), env::var_os("TERM").as_deref()) {
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

/// Whether there is somebody to see it, on a terminal that can take it away again.
fn is_shown(terminal: bool, kind: Option<&OsStr>) -> bool {
    terminal && out::obeys(kind)
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

/// As much of a line as a terminal has room for, where some letters take two places and some none: a line that is broken could not be
/// taken away.
fn cut(text: &str, width: usize) -> String {
    let (mut room, mut fits, text) = (width.saturating_sub(1), String::new(), Span::raw(text));
    for letter in text.styled_graphemes(Style::new()) {
        let Some(left) = room.checked_sub(Span::raw(letter.symbol).width()) else { break };
        fits.push_str(letter.symbol);
        room = left;
    }
    fits
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
        for (text, width, fits) in [
            ("äbcd", 3, "äb"),
            ("äbcd", 9, "äbcd"),
            ("äbcd", 0, ""),
            ("店の棚", 6, "店の"),
            ("e\u{301}e\u{301}x", 3, "e\u{301}e\u{301}"),
        ] {
            assert_eq!(cut(text, width), fits, "{text} in {width}");
        }
    }

    #[test]
    fn where_nothing_can_be_taken_away_nothing_is_shown() {
        let shown = |terminal, kind: &str| is_shown(terminal, Some(OsStr::new(kind)));
        assert!(shown(true, "xterm") && is_shown(true, None));
        assert!(!shown(true, "dumb") && !shown(false, "xterm"));
    }

    #[tokio::test]
    async fn what_is_waited_for_comes_through() {
        let sent = AtomicU64::new(0);
        assert_eq!(sending("x", &sent, 1, async { 7 }).await + waiting("x", async { 1 }).await, 8);
    }
}
