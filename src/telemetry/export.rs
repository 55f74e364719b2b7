//! Spans of statements for OpenTelemetry, sent by OTLP over HTTP.
//!
//! **Invariant.** A statement never waits for its trace: what the queue has no room for is dropped. A statement that comes with a
//! trace context belongs to it and is recorded if it says so; of the others the configured part is. What is not finished is not
//! exported.

mod client;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext as OtelContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use tokio::runtime::Handle;

pub use client::TracerError;

use super::trace::SpanContext;
use crate::config;

/// Longest time that a span waits for others to be sent along.
const DELAY: Duration = Duration::from_secs(1);
/// For one request to the receiver.
const LIMIT: Duration = Duration::from_secs(5);

/// Where finished spans go.
pub struct Tracer {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    sample_ratio: f64,
    propagates: bool,
}

/// A statement that is traced.
pub struct Trace {
    tracer: Arc<Tracer>,
    context: SpanContext,
    parent: Option<u64>,
    started: SystemTime,
    parts: Vec<Part>,
}

/// Something that was done for it.
struct Part {
    name: &'static str,
    started: SystemTime,
    ended: SystemTime,
}

/// The proxy's HTTP client, on the proxy's runtime: batches are made by a thread that has none.
#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    client: Arc<dyn HttpClient>,
}

impl HttpClient for OnRuntime {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move { client.send_bytes(request).await });
        Box::pin(async move { sent.await? })
    }
}

impl Tracer {
    /// `None` if no traces are wanted. What is sent goes through `runtime`.
    pub fn new(config: &config::Tracing, runtime: Handle) -> Result<Option<Arc<Self>>, TracerError> {
        if config.endpoint.is_empty() {
            return Ok(None);
        }
        let client = OnRuntime { runtime, client: client::new(config, LIMIT)? };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", config.endpoint.trim_end_matches('/')))
            .with_timeout(LIMIT)
            .build()?;
        let batches = BatchConfigBuilder::default().with_scheduled_delay(DELAY).build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let resource = Resource::builder().with_service_name(config.service_name.clone()).build();
        processor.set_resource(&resource);
        let scope =
            InstrumentationScope::builder(env!("CARGO_PKG_NAME")).with_version(env!("CARGO_PKG_VERSION")).build();
        let (sample_ratio, propagates) = (config.sample_ratio, config.propagate);
        Ok(Some(Arc::new(Self { processor, scope, sample_ratio, propagates })))
    }

    /// A trace of a statement with this text, if there is to be one.
    pub fn begin(self: &Arc<Self>, text: &[u8]) -> Option<Box<Trace>> {
        let remote = SpanContext::of_comment(text);
        let (context, parent) = match remote {
            Some(remote) => (remote.child(), Some(remote.span_id)),
            None => (SpanContext { sampled: self.samples(), ..SpanContext::root() }, None),
        };
        let trace = || {
            let (tracer, started) = (self.clone(), SystemTime::now());
            Box::new(Trace { tracer, context, parent, started, parts: Vec::new() })
        };
        context.sampled.then(trace)
    }

    /// A span that belongs to a statement which has been answered already.
    pub fn late(&self, context: &SpanContext, name: &'static str, took: Duration) {
        let ended = SystemTime::now();
        let part = Part { name, started: ended.checked_sub(took).unwrap_or(ended), ended };
        self.export_part(context, part);
    }

    fn samples(&self) -> bool {
        self.sample_ratio >= 1.0 || rand::random::<f64>() < self.sample_ratio
    }

    fn export_part(&self, context: &SpanContext, part: Part) {
        let Part { name, started, ended } = part;
        let parent = Parent { span_id: context.span_id, is_remote: false };
        self.export(&context.child(), Some(parent), SpanKind::Internal, name.into(), (started, ended), |_| {});
    }

    fn export(
        &self,
        context: &SpanContext,
        parent: Option<Parent>,
        kind: SpanKind,
        name: std::borrow::Cow<'static, str>,
        (start_time, end_time): (SystemTime, SystemTime),
        complete: impl FnOnce(&mut SpanData),
    ) {
        let (trace_id, span_id) = (TraceId::from(context.trace_id), SpanId::from(context.span_id));
        let mut span = SpanData {
            span_context: OtelContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent.as_ref().map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id)),
            parent_span_is_remote: parent.is_some_and(|parent| parent.is_remote),
            span_kind: kind,
            name,
            start_time,
            end_time,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        };
        complete(&mut span);
        self.processor.on_end(span);
    }
}

struct Parent {
    span_id: u64,
    is_remote: bool,
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = self.processor.shutdown_with_timeout(LIMIT);
    }
}

/// How a traced statement has ended.
pub struct Ending<'a> {
    /// Where its answer came from.
    pub path: &'static str,
    pub failed: bool,
    /// Without its values.
    pub query: Option<&'a str>,
    pub database: &'a str,
    pub user: &'a str,
}

impl Trace {
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// The server is to be told of it: it is configured so, and the client has not done it.
    pub fn is_told(&self) -> bool {
        self.tracer.propagates && self.parent.is_none()
    }

    /// Something was done from the end of what was done before to now.
    pub fn did(&mut self, name: &'static str) {
        let started = self.parts.last().map_or(self.started, |part| part.ended);
        self.parts.push(Part { name, started, ended: SystemTime::now() });
    }

    /// Hands it over to be sent.
    pub fn finish(self, ending: &Ending<'_>) {
        let Self { tracer, context, parent, started, parts } = self;
        for part in parts {
            tracer.export_part(&context, part);
        }
        let operation = ending.query.and_then(|query| query.split(' ').next()).unwrap_or("statement").to_owned();
        let parent = parent.map(|span_id| Parent { span_id, is_remote: true });
        let times = (started, SystemTime::now());
        tracer.export(&context, parent, SpanKind::Server, operation.into(), times, |span| {
            let mut attribute = |name: &'static str, value: String| span.attributes.push(KeyValue::new(name, value));
            attribute("db.system.name", "postgresql".into());
            attribute("db.namespace", ending.database.to_owned());
            attribute("db.user", ending.user.to_owned());
            attribute("heliosdb.path", ending.path.to_owned());
            if let Some(query) = ending.query {
                attribute("db.query.text", query.to_owned());
            }
            if ending.failed {
                span.status = Status::error("the server answered with an error");
            }
        });
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("context", &self.context).finish_non_exhaustive()
    }
}
