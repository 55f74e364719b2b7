//! Traces, as a receiver of OTLP gets them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::harness::certificates::{Files, issue};
use crate::harness::{Options, Stage, port, wait_until};

/// Keeps every span that it is sent.
#[derive(Clone, Default)]
struct Receiver {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<BTreeSet<String>>>,
}

impl Receiver {
    /// Listens until the test ends.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        format!("http://{address}")
    }

    /// The same behind this certificate, which is for `localhost`.
    async fn start_with_tls(&self, files: &Files) -> String {
        let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", tcp.local_addr().unwrap().port());
        let listener = Tls { tcp, acceptor: Arc::new(config).into() };
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        endpoint
    }

    fn router(&self) -> axum::Router {
        let receiver = self.clone();
        let take = move |body: Bytes| async move { receiver.take(&body) };
        axum::Router::new().route("/v1/traces", post(take))
    }

    fn take(&self, body: &[u8]) {
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            self.services.lock().unwrap().extend(attributes.iter().map(|attribute| format!("{attribute:?}")));
            self.spans.lock().unwrap().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The span of the statement of this trace, and the names of its children.
    fn statement(&self, trace: u128) -> Option<(Span, BTreeSet<String>)> {
        let of_trace = |span: &Span| span.trace_id == trace.to_be_bytes();
        let (roots, children): (Vec<_>, Vec<_>) =
            self.spans().into_iter().filter(of_trace).partition(|span| span.kind == SpanKind::Server as i32);
        let root = roots.into_iter().next()?;
        for child in &children {
            assert_eq!(child.parent_span_id, root.span_id, "{child:?}");
            assert!(child.start_time_unix_nano <= child.end_time_unix_nano, "{child:?}");
        }
        Some((root, children.into_iter().map(|span| span.name).collect()))
    }

    /// The same when it is here, with at least these children.
    async fn until(&self, trace: u128, children: &[&str]) -> Span {
        let wanted: BTreeSet<String> = children.iter().map(|name| (*name).to_owned()).collect();
        let what = format!("a trace with {children:?}");
        wait_until(&what, async || self.statement(trace).is_some_and(|(_, children)| children.is_superset(&wanted)))
            .await;
        self.statement(trace).unwrap().0
    }
}

struct Tls {
    tcp: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    /// Whoever does not like the certificate is not here.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    let value = found.value.as_ref()?.value.as_ref()?;
    match value {
        opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(text) => Some(text.clone()),
        other => panic!("{name} is {other:?}"),
    }
}

/// The client's own span.
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// A statement that belongs to this trace.
fn within(trace: u128, sql: &str) -> String {
    format!("{sql} /*action='x',traceparent='00-{trace:032x}-{PARENT:016x}-01'*/")
}

#[tokio::test]
async fn a_statement_is_a_span_of_its_clients_trace_with_what_was_done_for_it() {
    let receiver = Receiver::default();
    let endpoint = receiver.start().await;
    let options = Options::default().key("tracing.endpoint", endpoint).key("tracing.sample_ratio", 0);
    let stage = Stage::setup_with(options, "CREATE TABLE t (v int, k text); INSERT INTO t VALUES (1, '')").await;
    let client = stage.client().await;
    const READ: &str = "SELECT v FROM t WHERE k <> 'a secret'";
    // Until the catalogue is known nothing is analysed.
    let mut trace = 100;
    wait_until("an analysis", async || {
        trace += 1;
        client.one(&within(trace, READ)).await;
        receiver.spans().iter().any(|span| span.name == "analyse")
    })
    .await;
    let analysis = receiver.spans().into_iter().find(|span| span.name == "analyse").unwrap();
    let analysed = u128::from_be_bytes(analysis.trace_id.try_into().unwrap());
    let first = receiver.until(analysed, &["cache", "upstream"]).await;
    assert_eq!(first.parent_span_id, PARENT.to_be_bytes());
    assert_eq!(attribute(&first, "heliosdb.path").as_deref(), Some("upstream"));
    assert_eq!(attribute(&first, "db.query.text").as_deref(), Some("select v from t where k <> ?"));
    assert_eq!(attribute(&first, "db.namespace"), Some(stage.database.clone()));

    stage.cached(&client, READ).await;
    client.one(&within(2, READ)).await;
    let hit = receiver.until(2, &["cache"]).await;
    assert_eq!(attribute(&hit, "heliosdb.path").as_deref(), Some("cache"));

    client.run(&within(3, "UPDATE t SET v = 2")).await;
    receiver.until(3, &["cache", "upstream"]).await;
    client.one_batch(&within(4, READ)).await;
    receiver.until(4, &["upstream"]).await;
    client.fails(&within(5, "SELECT 1 / (v - 2) FROM t")).await;
    let failed = receiver.until(5, &["cache", "upstream"]).await;
    assert_eq!(failed.status.unwrap().code, 2, "an error");

    // Those without a context, and with one that is not sampled, are not in the sample.
    client.one(&within(6, READ).replace("-01'", "-00'")).await;
    let said = format!("{:?}", receiver.spans());
    let traces: BTreeSet<Vec<u8>> = receiver.spans().into_iter().map(|span| span.trace_id).collect();
    let known = (2..=5).chain(101..=trace).map(|trace: u128| trace.to_be_bytes().to_vec()).collect();
    assert!(traces.is_subset(&known), "{traces:?}");
    assert!(!said.contains("secret"), "{said}");
    assert!(format!("{:?}", receiver.services.lock().unwrap()).contains("heliosproxy"));
}

#[tokio::test]
async fn a_split_read_shows_when_its_rows_were_put_together() {
    let receiver = Receiver::default();
    let options = Options::default()
        .key("tracing.endpoint", receiver.start().await)
        .key("auth.mode", "trust")
        .key("parallel.enabled", "true")
        .key("parallel.max_parallelism", 2)
        .key("parallel.cost_threshold", 0)
        .key("parallel.min_table_mb", 0);
    let setup = "CREATE TABLE n AS SELECT n, 'text' FROM generate_series(1, 50000) n; ANALYZE n";
    let stage = Stage::setup_with(options, setup).await;
    let client = stage.client().await;
    let mut trace = 0;
    wait_until("a split read", async || {
        trace += 1;
        client.text(&within(trace, "/* helios: nocache */ SELECT n FROM n")).await;
        stage.proxy.metric("heliosdb_parallel_query_duration_seconds_count").await >= 1.0
    })
    .await;
    wait_until("its trace", async || receiver.statement(trace).is_some()).await;
    let (span, children) = receiver.statement(trace).unwrap();
    assert_eq!(attribute(&span, "heliosdb.path").as_deref(), Some("parallel"));
    assert!(children.contains("upstream") && children.contains("merge"), "{children:?}");
}

#[tokio::test]
async fn the_server_is_told_of_the_trace_if_that_is_wanted() {
    let receiver = Receiver::default();
    let options = Options::default().key("tracing.endpoint", receiver.start().await).key("tracing.propagate", "true");
    let stage = Stage::with(options).await;
    let client = stage.client().await;
    let running = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() -- mine";
    let told = client.one(running).await;
    let (own, context) = told.split_once("\n/*traceparent='").unwrap_or_else(|| panic!("{told}"));
    assert_eq!(own, running);
    let parts: Vec<&str> = context.split('-').collect();
    let trace = u128::from_str_radix(parts[1], 16).unwrap();
    wait_until("the trace", async || receiver.statement(trace).is_some()).await;
    let (span, _) = receiver.statement(trace).unwrap();
    assert_eq!(span.span_id, u64::from_str_radix(parts[2], 16).unwrap().to_be_bytes());
    assert!(span.parent_span_id.is_empty(), "{span:?}");
    // A client's own context reaches the server as it is.
    let sql = within(7, "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()");
    assert_eq!(client.one(&sql).await, sql);
    // Several statements at once have one span, and one comment.
    assert_eq!(client.text("SELECT 1; SELECT 2").await.len(), 2);
}

#[tokio::test]
async fn nobody_waits_for_a_receiver_that_is_not_there() {
    let options = Options::default().key("tracing.endpoint", format!("http://127.0.0.1:{}", port::free()));
    let mut stage = Stage::with(options).await;
    let client = stage.client().await;
    for n in 0..100 {
        assert_eq!(client.one(&format!("SELECT {n}")).await, n.to_string());
    }
    stage.proxy.signal("TERM");
    assert_eq!(stage.proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_receiver_may_be_behind_tls_if_its_certificate_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (files, elsewhere) = (issue(dir.path(), "receiver", "localhost"), tempfile::tempdir().unwrap());
    let receiver = Receiver::default();
    let endpoint = receiver.start_with_tls(&files).await;
    let options = |authority: &std::path::Path| {
        Options::default().key("tracing.endpoint", &endpoint).key("tracing.ca_file", authority.display())
    };
    let trusting = Stage::with(options(&files.authority)).await;
    trusting.client().await.run(&within(8, "SELECT 8")).await;
    wait_until("its trace", async || receiver.statement(8).is_some()).await;

    // Signed by somebody else: nothing is sent. What is on its way when a proxy ends is sent first.
    let key = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    std::fs::write(elsewhere.path().join("stranger.crt"), stranger.pem()).unwrap();
    let mut wary = Stage::with(options(&elsewhere.path().join("stranger.crt"))).await;
    wary.client().await.run(&within(9, "SELECT 9")).await;
    wary.proxy.signal("TERM");
    assert_eq!(wary.proxy.ended().await, Some(0));
    trusting.client().await.run(&within(10, "SELECT 10")).await;
    wait_until("a later trace", async || receiver.statement(10).is_some()).await;
    assert!(receiver.statement(9).is_none());
}
