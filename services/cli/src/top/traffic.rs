//! What an app's requests were like lately: from what the proxy counts, read again and again. Pure; the clock is passed in.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

/// How many readings are looked back on.
const READINGS: usize = 6;

/// What the proxy counted of one app since it was started.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Count {
    responses: u64,
    broken: u64,
    /// Requests by upper bound in seconds, each bound with all below it.
    buckets: Vec<(f64, u64)>,
}

/// What that comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Flow {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Answers 5xx and none, a second.
    pub(crate) broken: f64,
    /// Seconds; none where nothing was asked.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

type Counts = BTreeMap<String, Count>;

/// Readings, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Traffic(VecDeque<(Instant, Counts)>);

impl Traffic {
    /// One more reading of the proxy's metrics.
    pub(crate) fn add(&mut self, now: Instant, metrics: &str) {
        if self.0.len() >= READINGS {
            self.0.pop_front();
        }
        self.0.push_back((now, counts(metrics)));
    }

    /// How it goes with an app, by instance id.
    pub(crate) fn of(&self, id: &str) -> Flow {
        let (Some((from, old)), Some((to, new))) = (self.0.front(), self.0.back()) else {
            return Flow::default();
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        match new.get(id) {
            Some(new) if seconds > 0.0 => new.since(old.get(id).unwrap_or(&Count::default())).flow(seconds),
            _ => Flow::default(),
        }
    }
}

impl Count {
    /// What came on top of an older reading. A proxy that was started anew counts from nothing.
    fn since(&self, old: &Self) -> Self {
        if self.responses < old.responses {
            return self.clone();
        }
        let before =
            |bound: f64| old.buckets.iter().find(|(old, _)| *old == bound).map_or(0, |(_, count)| *count);
        let buckets =
            self.buckets.iter().map(|(bound, count)| (*bound, count.saturating_sub(before(*bound))));
        Self {
            responses: self.responses - old.responses,
            broken: self.broken.saturating_sub(old.broken),
            buckets: buckets.collect(),
        }
    }

    fn flow(&self, seconds: f64) -> Flow {
        let rate = |count: u64| count as f64 / seconds;
        Flow {
            rate: rate(self.responses),
            broken: rate(self.broken),
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
        }
    }

    /// The time within which this share of the requests was answered, as even within a bucket as can be.
    fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.buckets.last().filter(|(_, count)| *count > 0)?.1 as f64;
        let (mut below, mut floor) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = *count as f64;
            if count >= share * total {
                let part = if count > below { (share * total - below) / (count - below) } else { 1.0 };
                return Some(if bound.is_finite() { floor + (bound - floor) * part } else { floor });
            }
            (below, floor) = (count, *bound);
        }
        None
    }
}

/// The counters of each app; lines that are not understood are passed over.
fn counts(metrics: &str) -> Counts {
    let mut counts = Counts::new();
    for line in metrics.lines() {
        let Some((name, rest)) =
            line.strip_prefix("nexushub_proxy_route_").and_then(|line| line.split_once('{'))
        else {
            continue;
        };
        let Some((labels, value)) = rest.split_once("} ") else { continue };
        let (Some(id), Ok(value)) = (label(labels, "instance"), value.trim().parse::<u64>()) else {
            continue;
        };
        let count = counts.entry(id.to_owned()).or_default();
        match name {
            "responses_total" => {
                count.responses += value;
                if matches!(label(labels, "class"), Some("5xx" | "none")) {
                    count.broken += value;
                }
            }
            "duration_seconds_bucket" => {
                // Rust reads `+Inf`, too.
                let bound = label(labels, "le").and_then(|bound| bound.parse().ok());
                count.buckets.extend(bound.map(|bound| (bound, value)));
            }
            _ => {}
        }
    }
    counts
}

fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn metrics(ok: u64, broken: u64, buckets: [u64; 3]) -> String {
        let of = "instance=\"shop\",host=\"shop\"";
        let [fast, slow, all] = buckets;
        format!(
            "# TYPE nexushub_proxy_route_responses_total counter\n\
             nexushub_proxy_route_responses_total{{{of},class=\"2xx\"}} {ok}\n\
             nexushub_proxy_route_responses_total{{{of},class=\"5xx\"}} {broken}\n\
             nexushub_proxy_route_duration_seconds_bucket{{{of},le=\"0.01\"}} {fast}\n\
             nexushub_proxy_route_duration_seconds_bucket{{{of},le=\"0.1\"}} {slow}\n\
             nexushub_proxy_route_duration_seconds_bucket{{{of},le=\"+Inf\"}} {all}\n\
             nexushub_proxy_route_duration_seconds_sum{{{of}}} 1.5\nnonsense {{\n"
        )
    }

    #[test]
    fn rates_and_quantiles_are_of_what_came_lately() {
        let (begin, mut traffic) = (Instant::now(), Traffic::default());
        traffic.add(begin, &metrics(1000, 0, [1000, 1000, 1000]));
        assert_eq!(traffic.of("shop"), Flow::default(), "one reading tells nothing");
        traffic.add(begin + Duration::from_secs(2), &metrics(1090, 10, [1050, 1100, 1100]));
        let flow = traffic.of("shop");
        assert_eq!((flow.rate, flow.broken), (50.0, 5.0));
        assert_eq!(flow.p50, Some(0.01), "half of them were in the first bucket");
        assert!(flow.p99.is_some_and(|p99| p99 > 0.09 && p99 <= 0.1), "{flow:?}");
        assert_eq!(traffic.of("nobody"), Flow::default());
    }

    #[test]
    fn a_proxy_that_was_started_anew_counts_from_nothing() {
        let (begin, mut traffic) = (Instant::now(), Traffic::default());
        traffic.add(begin, &metrics(1000, 0, [1000, 1000, 1000]));
        traffic.add(begin + Duration::from_secs(1), &metrics(4, 0, [4, 4, 4]));
        assert_eq!(traffic.of("shop").rate, 4.0);
    }

    #[test]
    fn old_readings_are_let_go_of() {
        let (begin, mut traffic) = (Instant::now(), Traffic::default());
        for second in 0..20 {
            traffic.add(begin + Duration::from_secs(second), &metrics(second * 10, 0, [0; 3]));
        }
        assert_eq!((traffic.0.len(), traffic.of("shop").rate), (READINGS, 10.0));
        assert_eq!(traffic.of("shop").p99, None, "nothing was counted in any bucket");
    }

    #[test]
    fn what_no_bucket_bounds_is_as_slow_as_the_last_bound_at_least() {
        let (begin, mut traffic) = (Instant::now(), Traffic::default());
        traffic.add(begin, &metrics(0, 0, [0; 3]));
        traffic.add(begin + Duration::from_secs(1), &metrics(2, 0, [0, 0, 2]));
        assert_eq!(traffic.of("shop").p99, Some(0.1));
    }
}
