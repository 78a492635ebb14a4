//! Ours against nginx, HAProxy and Caddy in the same run: the same backend, certificate and ciphers, each proxy alone on core 0,
//! all else on core 1. `proxy/README.md` says how and keeps what was measured.
//!
//! `nexushub-bench proxy [--rows NAME,...] [--runs N] [--seconds S] [--json FILE]`: the rows of these names, or
//! those whose names begin so.

pub(crate) mod backend;
mod contenders;
pub(crate) mod cost;
mod figures;
mod generator;
mod link;
mod measures;
mod rows;
mod sizes;
mod speech;
mod trust;

use std::{fs, time::Duration};

use serde_json::{Value, json};

use measures::Bench;

/// Runs of each row, and seconds of each contender's turn in a run: all rows in 25 minutes.
const RUNS: usize = 10;
const SECONDS: f64 = 1.5;

/// Measures the rows that are asked for and prints the table as it grows.
pub(crate) fn main(words: &[String]) {
    let option = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        Some(words.get(at + 1).unwrap_or_else(|| panic!("{name} of what?")).as_str())
    };
    let runs = option("--runs").map_or(RUNS, |text| text.parse().unwrap());
    let seconds = option("--seconds").map_or(SECONDS, |text| text.parse().unwrap());
    let asked: Vec<&str> = option("--rows").map_or(Vec::new(), |text| text.split(',').collect());
    let named = |begin: &str| rows::ALL.iter().any(|row| row.name == begin);
    let means = |begin: &str, name: &str| name == begin || (!named(begin) && name.starts_with(begin));
    let asks = |name: &str| asked.is_empty() || asked.iter().any(|begin| means(begin, name));

    cost::bind(cost::REST); // before there are other threads: they will be where this one is
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut bench = Bench::new(runtime, runs, Duration::from_secs_f64(seconds));
    println!("{runs} runs of {seconds} s for each; median (least–most)\n");
    print!("{}", figures::head());
    let (mut table, mut short): (Vec<Value>, String) = (Vec::new(), figures::short_head());
    for row in rows::ALL.iter().filter(|row| asks(row.name)) {
        let measured = bench.row(row);
        print!("{}", figures::lines(&format!("`{}` {}", row.name, row.says), &measured));
        short += &figures::short_lines(row.name, &measured);
        table.push(figures::json(row.name, &measured));
    }
    print!("\n{short}");
    if let Some(file) = option("--json") {
        let all = json!({"runs": runs, "seconds": seconds, "rows": table});
        fs::write(file, format!("{all:#}\n")).unwrap();
    }
}
