//! Logs as JSON lines on stderr, and spans for traces (`trace.rs` carries them between daemons). With `[telemetry] otlp_endpoint` spans are
//! exported too, on a runtime of their own: an exporter's shutdown waits for its runtime, which must not be the daemon's.

use std::{fmt, io::Write, sync::OnceLock, time::SystemTime};

use nexushub_launch::{Fault, clock, json::Object};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde::Deserialize;
use serde_json::Value;
use tracing::{
    Dispatch, Event, Level, Subscriber,
    dispatcher::WeakDispatch,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The table `[telemetry]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// Where spans are sent over OTLP/gRPC, as `http://127.0.0.1:4317`; empty = nowhere.
    pub(crate) otlp_endpoint: String,
}

/// What must live as long as the daemon, and be shut down after it.
pub(crate) struct Exporting {
    provider: SdkTracerProvider,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Exporting {
    /// Sends what is left. To be called outside of any runtime.
    pub(crate) fn finish(self) {
        if let Some(runtime) = self.runtime {
            let _ = self.provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
            runtime.shutdown_background();
        }
    }
}

/// Starts logging and tracing for the process; once.
///
/// # Errors
/// When the exporter's address isn't one.
pub(crate) fn start(daemon: &'static str, level: &str, telemetry: &Telemetry) -> Result<Exporting, Fault> {
    let exporting = exporting(daemon, telemetry)?;
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    let libraries = level.min(LevelFilter::WARN);
    let targets = Targets::new().with_default(libraries).with_target("nexushub", level);
    let targets = DAEMON_TARGETS.iter().fold(targets, |targets, target| targets.with_target(*target, level));
    let traces = tracing_opentelemetry::layer().with_tracer(exporting.provider.tracer("nexushub"));
    let lines = JsonLines { daemon, dispatch: OnceLock::new() };
    // A second start (a test's) leaves the first in force.
    let _ = tracing_subscriber::registry().with(targets).with(traces).with(lines).try_init();
    Ok(exporting)
}

/// Crate names start with `nexushub_`, which `Targets` matches only as whole path segments.
const DAEMON_TARGETS: [&str; 6] = [
    "nexushub_chassis",
    "nexushub_provider",
    "nexushub_procmgr",
    "nexushub_proxy",
    "nexushub_debug_api",
    "nexushub_shim",
];

fn exporting(daemon: &'static str, telemetry: &Telemetry) -> Result<Exporting, Fault> {
    let resource = Resource::builder().with_service_name(format!("nexushub-{daemon}")).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    if telemetry.otlp_endpoint.is_empty() {
        return Ok(Exporting { provider: builder.build(), runtime: None });
    }
    let fault = |error: &dyn fmt::Display| {
        let msg = format!("could not set up the trace exporter: {error}");
        Fault::new(
            "telemetry_invalid",
            msg,
            telemetry.otlp_endpoint.clone(),
            "set telemetry.otlp_endpoint to http://host:port",
        )
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp")
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| fault(&error))?;
    let exporter = runtime.block_on(async {
        opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&telemetry.otlp_endpoint)
            .build()
    });
    let provider = builder.with_batch_exporter(exporter.map_err(|error| fault(&error))?).build();
    Ok(Exporting { provider, runtime: Some(runtime) })
}

/// One line of JSON an event: `ts level daemon release msg`, the event's fields, and the trace it belongs to.
struct JsonLines {
    daemon: &'static str,
    dispatch: OnceLock<WeakDispatch>,
}

impl JsonLines {
    fn line(&self, level: Level, fields: Fields, trace: Option<String>) -> String {
        let head = Object::new()
            .text("ts", &clock::rfc3339(SystemTime::now()))
            .text("level", &level.as_str().to_ascii_lowercase())
            .text("daemon", self.daemon)
            .text("release", env!("CARGO_PKG_VERSION"))
            .raw("msg", &fields.message.unwrap_or_default().to_string());
        let line = fields.others.iter().fold(head, |line, (name, value)| line.raw(name, &value.to_string()));
        match trace {
            Some(trace) => line.text("trace_id", &trace).finish(),
            None => line.finish(),
        }
    }

    fn trace<S: Subscriber + for<'s> LookupSpan<'s>>(
        &self,
        event: &Event<'_>,
        context: &Context<'_, S>,
    ) -> Option<String> {
        let span = context.event_span(event)?.id();
        let dispatch = self.dispatch.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(&span, &dispatch)?;
        let context = context.span().span_context().clone();
        context.is_valid().then(|| context.trace_id().to_string())
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for JsonLines {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        let _ = self.dispatch.set(subscriber.downgrade());
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let trace = self.trace(event, &context);
        let line = self.line(*event.metadata().level(), fields, trace) + "\n";
        // One write a line, so that lines of several daemons on the same pipe never mix. Nobody to tell if it fails.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// An event's fields in their order; its message becomes `msg`.
#[derive(Default)]
struct Fields {
    message: Option<Value>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = Some(value),
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_malformed_exporter_address_is_a_fault() {
        let telemetry = Telemetry { otlp_endpoint: "not an address".into() };
        assert_eq!(exporting("test", &telemetry).err().unwrap().code, "telemetry_invalid");
    }
}
