//! What it costs to check the access token of a request: the very function that the proxy calls, beside the MAC that it stands on. One
//! token over and over, as a client shows it, and many of which each was not seen for long, as from many clients.

use std::{hint::black_box, time::Instant};

use nexushub_proxy::measured::TokenChecks;

/// Tokens of different sessions; together more than a core keeps at hand.
const TOKENS: u32 = 100_000;
/// Checks that are timed at once, since one is too short for a clock.
const AT_ONCE: usize = 1000;

pub(crate) fn measure() {
    let state = tempfile::tempdir().unwrap();
    let checks = TokenChecks::new(state.path(), TOKENS);
    println!("## the token of a request, ns a check");
    println!("{:<38} {:>7} {:>7} {:>7}", "", "p50", "p90", "p99");
    for (what, tokens) in [("the same token", 1), ("one that was not seen for long", TOKENS as usize)] {
        told(what, |number| checks.check(number % tokens));
        told("  its MAC alone", |number| checks.mac(number % tokens));
    }
}

/// Checks as many as there are tokens, in turn.
fn told(what: &str, check: impl Fn(usize) -> bool) {
    let mut times: Vec<f64> = (0..TOKENS as usize / AT_ONCE)
        .map(|round| {
            let began = Instant::now();
            for number in round * AT_ONCE..(round + 1) * AT_ONCE {
                assert!(check(black_box(number)), "a good token");
            }
            began.elapsed().as_secs_f64() * 1e9 / AT_ONCE as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<38} {:>7.0} {:>7.0} {:>7.0}", at(0.5), at(0.9), at(0.99));
}
