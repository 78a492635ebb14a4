//! One trace over several daemons: its context travels in the metadata of a call (W3C `traceparent`).

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the present trace into a call's metadata.
pub fn inject(headers: &mut HeaderMap) {
    struct Carrier<'h>(&'h mut HeaderMap);
    impl Injector for Carrier<'_> {
        fn set(&mut self, key: &str, value: String) {
            if let (Ok(key), Ok(value)) = (key.parse::<http::HeaderName>(), value.parse()) {
                self.0.insert(key, value);
            }
        }
    }
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Carrier(headers));
}

/// Makes a span part of the trace that a call's metadata names.
pub fn extract(headers: &HeaderMap, span: &Span) {
    struct Carrier<'h>(&'h HeaderMap);
    impl Extractor for Carrier<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
    if headers.contains_key("traceparent") {
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Carrier(headers)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::telemetry::{Telemetry, start};

    #[test]
    fn a_trace_goes_from_a_callers_metadata_to_the_callees() {
        start("test", "info", &Telemetry::default()).unwrap();
        let received = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let span = tracing::info_span!(target: "nexushub_chassis", "rpc");
        extract(&HeaderMap::from_iter([("traceparent".parse().unwrap(), received.parse().unwrap())]), &span);
        let mut sent = HeaderMap::new();
        span.in_scope(|| inject(&mut sent));
        let sent = sent["traceparent"].to_str().unwrap();
        assert_eq!(sent[..35], received[..35], "same trace");
        assert_ne!(sent, received, "own span");
    }
}
