//! What the proxy counts, as Prometheus reads it (text exposition format 0.0.4): of each route its answers by class and how
//! long they took, its requests under way and the connections to its app that rest, and of the proxy itself what its counters
//! say, of each limit how often it was reached. Counting is a few additions for each request; the text is made when it is asked for.

use std::{fmt::Write as _, time::Duration};

use crate::{
    counters::{CALMED, Counter, Counters, STOPPED},
    pool::Pool,
    table::{Route, Table},
};

/// Upper bounds of how long answers took: of each the microseconds, and the seconds as they are written.
const BOUNDS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (30_000_000, "30"),
];
/// By the first digit of the status; the first stands for no answer at all.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is counted of one route.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    classes: [Counter; CLASSES.len()],
    /// The last one: longer than all bounds.
    times: [Counter; BOUNDS.len() + 1],
    micros: Counter,
    bytes: Counter,
}

impl Traffic {
    /// Counts a request that was answered so (0 = not at all), in this time, with so many bytes of a body.
    pub(crate) fn count(&self, status: u16, took: Duration, bytes: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        self.classes[class].up();
        self.times[BOUNDS.partition_point(|(bound, _)| *bound < micros)].up();
        self.micros.add(micros);
        self.bytes.add(bytes);
    }
}

/// Everything, as text.
pub(crate) fn text(table: &Table, counters: &Counters) -> String {
    let mut text = String::with_capacity(4096);
    let routes = table.routes();
    of_routes(&mut text, &routes);
    for (name, kind, help, value) in [
        ("connections_accepted_total", "counter", "Connections accepted", &counters.connections_accepted),
        ("connections_open", "gauge", "Connections open", &counters.connections_open),
        (
            "connections_refused_total",
            "counter",
            "Connections refused: too many",
            &counters.connections_refused,
        ),
        (
            "connections_displaced_total",
            "counter",
            "Idle connections that made way for others",
            &counters.connections_displaced,
        ),
        (
            "connections_refused_address_total",
            "counter",
            "Connections refused: too many of one client",
            &counters.connections_refused_address,
        ),
        ("tls_failures_total", "counter", "TLS handshakes that failed", &counters.tls_failures),
        ("requests_total", "counter", "Requests", &counters.requests),
        ("requests_in_flight", "gauge", "Requests under way", &counters.requests_in_flight),
        ("requests_malformed_total", "counter", "Bytes that were no request", &counters.requests_malformed),
        ("tls_handshakes_full_total", "counter", "TLS handshakes made whole", &counters.tls_full),
        (
            "tls_handshakes_resumed_total",
            "counter",
            "TLS handshakes of sessions of before",
            &counters.tls_resumed,
        ),
        ("requests_limited_total", "counter", "Requests faster than allowed", &counters.requests_limited),
        (
            "access_refused_total",
            "counter",
            "Requests refused for what they showed, or did not",
            &counters.access_refused,
        ),
        ("redirects_total", "counter", "Requests by plain HTTP", &counters.redirects),
        ("ejections_total", "counter", "Failing backends that were left out", &counters.ejections),
        ("upgrades_open", "gauge", "Upgraded connections open", &counters.upgrades_open),
        ("inward_connections_open", "gauge", "Connections out of boxes", &counters.inward_connections_open),
        ("inward_refused_total", "counter", "Refused out of boxes: too many", &counters.inward_refused),
    ] {
        head(&mut text, name, kind, help);
        line(&mut text, format_args!("nexushub_proxy_{name} {}", value.get()));
    }
    let help = "HTTP/2 connections ended: their client only cost";
    by_reason(&mut text, "h2_calmed_total", help, CALMED.iter().zip(&counters.h2_calmed));
    let help = "Requests and connections that reached a limit";
    by_reason(&mut text, "stopped_total", help, STOPPED.iter().zip(&counters.stopped));
    text
}

fn by_reason<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    counts: impl Iterator<Item = (&'a &'static str, &'a Counter)>,
) {
    head(text, name, "counter", help);
    for (why, count) in counts {
        line(text, format_args!("nexushub_proxy_{name}{{why=\"{why}\"}} {}", count.get()));
    }
}

fn of_routes(text: &mut String, routes: &[&std::sync::Arc<Route>]) {
    head(text, "route_up", "gauge", "Whether requests are sent to an app");
    for route in routes {
        let up = u8::from(route.entry.routed);
        line(text, format_args!("nexushub_proxy_route_up{{{}}} {up}", labels(route)));
    }
    head(text, "route_left_out", "gauge", "Whether an app fails and others take its requests");
    for route in routes.iter().filter(|route| !route.entry.rules.group.is_empty()) {
        let out = u8::from(route.standing.is_out());
        line(text, format_args!("nexushub_proxy_route_left_out{{{}}} {out}", labels(route)));
    }
    type Figure = fn(&Pool) -> usize;
    for (name, help, figure) in [
        (
            "route_requests_under_way",
            "Requests under way to an app, upgraded ones included",
            Pool::under_way as Figure,
        ),
        ("route_connections_resting", "Connections to an app that nobody uses", Pool::resting),
    ] {
        head(text, name, "gauge", help);
        for route in routes {
            let number = route.app.as_deref().map_or(0, figure);
            line(text, format_args!("nexushub_proxy_{name}{{{}}} {number}", labels(route)));
        }
    }
    head(text, "route_responses_total", "counter", "Answers by class of status");
    for route in routes {
        for (class, count) in CLASSES.iter().zip(&route.traffic.classes) {
            let name = "nexushub_proxy_route_responses_total";
            line(text, format_args!("{name}{{{},class=\"{class}\"}} {}", labels(route), count.get()));
        }
    }
    head(text, "route_response_bytes_total", "counter", "Bytes of answers' bodies");
    for route in routes {
        let bytes = route.traffic.bytes.get();
        line(text, format_args!("nexushub_proxy_route_response_bytes_total{{{}}} {bytes}", labels(route)));
    }
    head(text, "route_duration_seconds", "histogram", "Time from a request's head to its answer's end");
    routes.iter().for_each(|route| histogram(text, route));
}

fn histogram(text: &mut String, route: &Route) {
    let (name, labels, mut sum) = ("nexushub_proxy_route_duration_seconds", labels(route), 0);
    let bounds = BOUNDS.iter().map(|(_, seconds)| *seconds).chain(["+Inf"]);
    for (bound, count) in bounds.zip(&route.traffic.times) {
        sum += count.get();
        line(text, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"));
    }
    let micros = route.traffic.micros.get();
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    line(text, format_args!("{name}_sum{{{labels}}} {seconds}.{rest:06}"));
    line(text, format_args!("{name}_count{{{labels}}} {sum}"));
}

/// Ids and host names hold nothing that a label could not.
fn labels(route: &Route) -> String {
    let clean = |text: &str| text.replace(|c: char| c.is_control() || c == '"' || c == '\\', "_");
    format!("instance=\"{}\",host=\"{}\"", clean(&route.entry.id), clean(&route.entry.host))
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP nexushub_proxy_{name} {help}.\n# TYPE nexushub_proxy_{name} {kind}"));
}

fn line(text: &mut String, written: std::fmt::Arguments<'_>) {
    writeln!(text, "{written}").expect("memory takes what is written to it");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        counters::{Calmed, Stopped},
        pool::Limits,
        table::{Change, tests::running},
    };

    #[test]
    fn a_route_is_told_with_its_answers_and_how_long_they_took_over_changes_of_the_table() {
        let entries = vec![running("h1", "hello", 1)];
        let table = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
        let traffic = &table.by_id("h1").unwrap().traffic;
        traffic.count(200, Duration::from_micros(500), 10);
        traffic.count(503, Duration::from_millis(2), 5);
        traffic.count(0, Duration::from_secs(99), 0);
        let table = table.apply(Change::put(running("h1", "hello", 2)));
        let counters = Counters::default();
        counters.calmed(Calmed::Ping);
        counters.stop(Stopped::Holds);
        let told = text(&table, &counters);
        let of = "{instance=\"h1\",host=\"hello\"";
        for line in [
            format!("nexushub_proxy_route_up{of}}} 1"),
            format!("nexushub_proxy_route_responses_total{of},class=\"2xx\"}} 1"),
            format!("nexushub_proxy_route_responses_total{of},class=\"5xx\"}} 1"),
            format!("nexushub_proxy_route_responses_total{of},class=\"none\"}} 1"),
            format!("nexushub_proxy_route_response_bytes_total{of}}} 15"),
            format!("nexushub_proxy_route_duration_seconds_bucket{of},le=\"0.0005\"}} 1"),
            format!("nexushub_proxy_route_duration_seconds_bucket{of},le=\"0.0025\"}} 2"),
            format!("nexushub_proxy_route_duration_seconds_bucket{of},le=\"30\"}} 2"),
            format!("nexushub_proxy_route_duration_seconds_bucket{of},le=\"+Inf\"}} 3"),
            format!("nexushub_proxy_route_duration_seconds_sum{of}}} 99.002500"),
            format!("nexushub_proxy_route_duration_seconds_count{of}}} 3"),
            "# TYPE nexushub_proxy_requests_total counter".into(),
            "nexushub_proxy_requests_total 0".into(),
            format!("nexushub_proxy_route_requests_under_way{of}}} 0"),
            format!("nexushub_proxy_route_connections_resting{of}}} 0"),
            "nexushub_proxy_h2_calmed_total{why=\"ping\"} 1".into(),
            "nexushub_proxy_h2_calmed_total{why=\"error\"} 0".into(),
            "nexushub_proxy_stopped_total{why=\"holds\"} 1".into(),
            "nexushub_proxy_stopped_total{why=\"body\"} 0".into(),
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
        }
    }

    #[test]
    fn nothing_that_a_name_holds_breaks_out_of_its_label() {
        let entries = vec![running("a\"} 1\n", "hello", 1)];
        let table = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
        let told = text(&table, &Counters::default());
        assert!(told.contains("route_up{instance=\"a_} 1_\",host=\"hello\"} 1\n"), "{told}");
    }
}
