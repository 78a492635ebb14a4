//! What signing in costs, whether the time that it takes tells who is known, and what memory the two apps have before and after.

use std::time::Instant;

use nexushub_e2e::accounts::Accounts;
use serde_json::json;

use crate::boxes::pss;

/// Users who are known, and as many who are not.
const PEOPLE: usize = 40;
/// Wrong passwords for each: what costs no wait.
const TRIES: usize = 4;

pub(crate) async fn measure() {
    let trusting = "trusted_proxies = [\"127.0.0.1/32\"]\naddress_logins_per_minute = 0";
    let accounts = Accounts::start(trusting).await;
    let bearer = accounts.bearer().await;
    for number in 0..PEOPLE {
        let (name, password) = (format!("known{number}"), format!("correct horse {number}"));
        let event = json!({ "type": "AddUser", "username": name, "password": password });
        accounts.publish(&bearer, &name, &event).await;
    }
    println!("## signing in");
    tell_memory(&accounts, "before").await;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..PEOPLE * TRIES {
        let (person, from) = (number % PEOPLE, format!("192.0.2.{}", number % 250));
        for (kind, name) in [format!("known{person}"), format!("nobody{person}")].iter().enumerate() {
            times[kind].push(timed(&accounts, name, "a wrong one for sure", &from, 401).await);
        }
    }
    for person in 0..PEOPLE {
        let (name, password) = (format!("known{person}"), format!("correct horse {person}"));
        times[2].push(timed(&accounts, &name, &password, &format!("198.51.100.{person}"), 200).await);
    }
    let names = ["wrong password, user is known", "wrong password, user is not", "right password"];
    for (name, times) in names.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!("{name:<38} {:>6.1} {:>6.1} {:>6.1} ms (p50, p90, p99)", at(0.5), at(0.9), at(0.99));
    }
    println!("known to unknown, medians              {:>6.3}", median(&times[0]) / median(&times[1]));
    tell_memory(&accounts, "after").await;
}

async fn tell_memory(accounts: &Accounts, when: &str) {
    for app in ["login", "admin"] {
        let kib = pss(accounts.platform.running(app).await.pid);
        println!("memory (PSS) of {app} {when:<16} {:>6.1} MB", kib as f64 / 1024.0);
    }
}

/// Milliseconds of an attempt.
async fn timed(accounts: &Accounts, name: &str, password: &str, from: &str, status: u16) -> f64 {
    let began = Instant::now();
    let answer = accounts.log_in(name, password, from).await;
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    began.elapsed().as_secs_f64() * 1e3
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
