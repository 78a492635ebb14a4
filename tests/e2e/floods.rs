//! Whoever floods the proxy costs it no more memory than it says, and costs nobody else an answer.

use nexushub_e2e::{
    App, Load, Options, Platform,
    flood::{ALL, Flood},
    processes, soon,
};

/// What the proxy's memory may grow to, in KiB: what it is by itself and what an allocator keeps, and then for each connection and
/// each request that is under way. What `max_connections` and the streams of a connection multiply to is the bound of it all.
const ITSELF: usize = 48 * 1024;
const CONNECTION: usize = 128;
const REQUEST: usize = 16;

/// Nothing here is about how long a neighbour's handshake may take while the machine is busy.
const ROOMY: &str = "[platform]\nlog_level = \"warn\"\n[proxy]\nworkers = 2\ntls_handshake_ms = 600000\n";

fn resident(pid: u32, what: &str) -> usize {
    let text = processes::field(pid, what).unwrap();
    text.trim_end_matches(" kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flood_costs_more_memory_than_is_said_or_a_neighbour_an_answer() {
    for attack in ALL {
        // Each floods a proxy of its own: the peak counts from a process's beginning, and would be that of the floods before, too.
        let platform = Platform::start_with(&Options::with(ROOMY));
        for name in ["flooded", "well"] {
            platform.run_app(&App::named(name)).await;
        }
        let https = platform.https();
        let proxy = platform.daemon("proxy").await.pid;
        let before = resident(proxy, "VmRSS");
        let flood = Flood::start(&https, attack);
        let load = Load::start(&https, "well", 2, 1);
        load.goes_on(150).await;
        let most = resident(proxy, "VmHWM");
        let tally = load.stop().await;
        soon("the flood's end", flood.stop()).await;
        let bound = ITSELF + attack.connections * (CONNECTION + attack.requests * REQUEST);
        println!("figure: {}: {before} KiB before, at most {most} KiB of {bound}", attack.name);
        assert_eq!((tally.failed(), tally.retried), (0, 0), "{}: {tally:?}", attack.name);
        assert!(most <= bound, "{}: {most} KiB of {bound}", attack.name);
        assert_eq!(platform.daemon("proxy").await.pid, proxy, "{}: it is the same process", attack.name);
    }
}
