//! Metrics, health and the status page over HTTP, for scrapers, orchestrators and people.

mod page;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Shared;
use super::listen::ListenError;
use super::sockets::Listening;
use crate::telemetry::health::{Health, Status};
use crate::telemetry::metrics::Metrics;

/// Makes what `/stats` answers with.
pub(super) type Stats = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The HTTP listener. Serves until it is dropped.
#[derive(Debug)]
pub(super) struct Http {
    _serving: JoinSet<()>,
    addresses: Vec<SocketAddr>,
}

impl Http {
    /// Must be called within a runtime.
    pub fn start(sockets: Vec<Listening>, shared: &Shared, stats: Stats) -> Result<Self, ListenError> {
        let router = router(shared, stats);
        let mut serving = JoinSet::new();
        let mut addresses = Vec::new();
        for socket in sockets {
            let place = socket.place().map_err(ListenError::bind("HTTP"))?;
            let Listening::Tcp(listener) = socket else { return Err(ListenError::NotTcp(place.to_string())) };
            let listener = TcpListener::from_std(listener).map_err(ListenError::bind(&place))?;
            addresses.extend(listener.local_addr());
            let router = router.clone();
            serving.spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "the HTTP listener ended");
                }
            });
        }
        Ok(Self { _serving: serving, addresses })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

fn router(shared: &Shared, stats: Stats) -> Router {
    let health = Arc::clone(&shared.health);
    Router::new()
        .route("/", get(page::show))
        .route("/stats", get(show_stats).with_state((Arc::clone(&health), stats)))
        .route("/metrics", get(render).with_state(Arc::clone(&shared.metrics)))
        .route("/health", get(ready).with_state(Arc::clone(&health)))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready).with_state(health))
}

/// Everything that the status page shows, as one object.
async fn show_stats(State((health, stats)): State<(Arc<Health>, Stats)>) -> Response {
    let mut stats = stats();
    if let (serde_json::Value::Object(members), Ok(health)) = (&mut stats, serde_json::to_value(health.report())) {
        members.insert("health".into(), health);
    }
    json(StatusCode::OK, &stats)
}

async fn render(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics.render()).into_response()
}

/// Whether the process is worth keeping: it is, as long as it can say so.
async fn live() -> Response {
    #[derive(Serialize)]
    struct Live {
        status: Status,
        version: &'static str,
    }
    json(StatusCode::OK, &Live { status: Status::Healthy, version: env!("CARGO_PKG_VERSION") })
}

/// Whether clients should be sent here.
async fn ready(State(health): State<Arc<Health>>) -> Response {
    let report = health.report();
    let code = match report.status {
        Status::Healthy | Status::Degraded => StatusCode::OK,
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(code, &report)
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(body) => (code, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::config::Config;
    use crate::server::listen::bind_tcp;
    use crate::telemetry::metrics::Class;

    /// The whole answer to a GET, header and all.
    pub async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn listening() -> Vec<Listening> {
        bind_tcp("127.0.0.1:0", |_| None).unwrap().into_iter().map(Listening::Tcp).collect()
    }

    #[tokio::test]
    async fn metrics_are_served() {
        let shared = Shared::new(Config::default());
        let http = Http::start(listening(), &shared, Arc::new(|| serde_json::json!({"version": "x"}))).unwrap();
        shared.metrics.queries(Class::Read).increment(7);
        let answer = fetch(http.addresses()[0], "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("heliosdb_queries_total{class=\"read\"} 7"), "{answer}");
    }

    #[tokio::test]
    async fn ready_follows_health_and_live_does_not() {
        let shared = Shared::new(Config::default());
        let http = Http::start(listening(), &shared, Arc::new(|| serde_json::json!({"version": "x"}))).unwrap();
        let address = http.addresses()[0];
        let upstream = shared.health.register("upstream");
        upstream.set(Status::Unhealthy, "connection refused");
        let answer = fetch(address, "/health/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.contains(r#""text":"connection refused""#), "{answer}");
        assert!(fetch(address, "/health/live").await.starts_with("HTTP/1.1 200"));
        upstream.set(Status::Degraded, "slow");
        assert!(fetch(address, "/health/ready").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/else").await.starts_with("HTTP/1.1 404"));
    }
}
