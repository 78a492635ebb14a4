//! From the key `r` in `nexushub dev` to the first answer of the changed app, beside what its build takes: hello, in the box that the
//! platform chooses.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http::Request;
use nexushub_e2e::{Platform, Protocol, terminal::Terminal, workshop};

/// Key presses.
const ROUNDS: usize = 40;
/// Between two questions: what asks more often takes the processor from what it waits for.
const EVERY: Duration = Duration::from_millis(2);
/// The goal for half of them, in ms.
const GOAL: f64 = 300.0;
/// What stands for a build: the program is another one each time, and a page says which.
const BUILD: &str = "cp page package/static/page.txt && cat page >> package/bin/app";

pub(crate) async fn measure() {
    println!("## `dev`, {ROUNDS} key presses, in ms: p50, p90, max");
    let platform = Platform::start();
    let folder = project(platform.home.path());
    let mut terminal = Terminal::start(platform.home.path(), &folder, &["dev", "--build", BUILD]);
    terminal.shows("ms, push");
    let (mut whole, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        fs::write(folder.join("page"), round.to_string()).unwrap();
        let began = Instant::now();
        terminal.press("r");
        says(&platform, &round.to_string()).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        whole.push(took);
        beside.push(took - build(&terminal.reads("ms, push")));
    }
    terminal.press("q");
    terminal.end();
    report("key to answer", &mut whole);
    let verdict =
        if report("the same beside the build", &mut beside) <= GOAL { "goal met" } else { "below goal" };
    println!("{verdict}");
}

/// Where the package is made; it begins with page 0.
fn project(home: &Path) -> PathBuf {
    let folder = home.join("hello");
    for below in ["package/bin", "package/static"] {
        fs::create_dir_all(folder.join(below)).unwrap();
    }
    workshop::install(&workshop::program("nexushub-hello"), &folder.join("package/bin/app"));
    fs::write(folder.join("page"), "0").unwrap();
    folder
}

/// Waits until the app has this page. It comes with the release that is routed, which is the new one once that answers.
async fn says(platform: &Platform, page: &str) {
    let mut connection = platform.https().open(Protocol::Http1, "hello-dev").await.unwrap();
    let mut clock = tokio::time::interval(EVERY);
    loop {
        clock.tick().await;
        let answer = connection.send(Request::get("/page.txt").body(Default::default()).unwrap()).await;
        if answer.unwrap().text() == page {
            return;
        }
    }
}

/// How long a build took, of what was said up to the words behind it.
fn build(said: &str) -> f64 {
    let (_, figure) = said.rsplit_once("build ").unwrap();
    figure.split(' ').next().unwrap().parse().unwrap()
}

/// Tells of these, and what half of them are below.
fn report(what: &str, took: &mut [f64]) -> f64 {
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("{what:<28} {:>6.0} {:>6.0} {:>6.0}", at(50), at(90), at(100));
    at(50)
}
