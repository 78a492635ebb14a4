//! Whoever floods the proxy costs it no more memory than it says, and costs nobody else an answer.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    App, Load, Options, Platform, Protocol,
    flood::{ALL, Flood, ROOM},
    processes, soon,
};

/// What the proxy's memory may grow by, in KiB: what an allocator keeps, and then for each connection and each request that is under
/// way. What `max_connections` and the streams of a connection multiply to is the bound of it all.
const ALLOCATOR: usize = 36 * 1024;
const CONNECTION: usize = 128;
const REQUEST: usize = 16;
/// And the bodies that clients of HTTP/2 send ahead: what each connection may, and what all may together.
const OWN: usize = 64;
const BORROWED: usize = 16 * 1024;

/// With no line in the log for each request of a flood.
fn roomy() -> Options {
    Options::with(&format!(
        "[platform]\nlog_level = \"warn\"\n[proxy]\nworkers = 2\nmax_connections = {ROOM}\nh2_ahead_bytes = {}\n",
        BORROWED * 1024
    ))
}

fn get() -> Request<Full<Bytes>> {
    Request::get("/").body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flood_costs_more_memory_than_is_said_or_a_neighbour_an_answer() {
    for attack in ALL {
        // Each floods a proxy of its own: what an allocator keeps of the floods before would be there already.
        let platform = Platform::start_with(&roomy());
        for name in ["flooded", "well"] {
            platform.run_app(&App::named(name)).await;
        }
        let https = platform.https();
        let proxy = platform.daemon("proxy").await.pid;
        let before = processes::forget_peak(proxy);
        let flood = Flood::start(&https, attack);
        let load = Load::start(&https, "well", 2, 1);
        load.goes_on(300).await;
        let newcomer = async { while https.send(Protocol::Http1, "well", get()).await.is_err() {} };
        soon("one more client is let in", newcomer).await;
        let more = processes::kib(proxy, "VmHWM").saturating_sub(before);
        let tally = load.stop().await;
        soon("the flood's end", flood.stop()).await;
        let ahead = if attack.hoards() { (OWN, BORROWED) } else { (0, 0) };
        let each = CONNECTION + attack.requests * REQUEST + ahead.0;
        let bound = ALLOCATOR + attack.connections.min(ROOM) * each + ahead.1;
        println!("figure: {}: {before} KiB before, at most {more} KiB more of {bound}", attack.name);
        assert_eq!((tally.failed(), tally.retried), (0, 0), "{}: {tally:?}", attack.name);
        assert!(more <= bound, "{}: {more} KiB of {bound}", attack.name);
        assert_eq!(platform.daemon("proxy").await.pid, proxy, "{}: it is the same process", attack.name);
    }
}
