//! The HTTP client that spans are sent with, by TLS if the endpoint says so.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::HttpClient;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::ExporterBuildError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use crate::config;

/// Why nothing can be sent.
#[derive(Debug, Error)]
pub enum TracerError {
    #[error("tracing.ca_file: cannot read {path}: {source}")]
    File { path: String, source: pem::Error },
    #[error("tracing.ca_file: {path} holds a certificate that cannot be a CA's: {source}")]
    Root { path: String, source: rustls::Error },
    #[error("tracing.endpoint: there is no CA certificate to check it against")]
    NoRoots,
    #[error("tracing.endpoint: {0}")]
    Tls(#[from] rustls::Error),
    #[error("tracing.endpoint: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// A client for the configured endpoint; `limit` is for one request.
pub(super) fn new(config: &config::Tracing, limit: Duration) -> Result<Arc<dyn HttpClient>, TracerError> {
    if !config.endpoint.starts_with("https://") {
        return Ok(Arc::new(HyperClient::with_default_connector(limit, None)));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&config.ca_file)?)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    Ok(Arc::new(HyperClient::new(connector, limit, None)))
}

/// Of a file, or of the system.
fn roots(path: &str) -> Result<RootCertStore, TracerError> {
    let mut roots = RootCertStore::empty();
    if path.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let file = |source| TracerError::File { path: path.into(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(file)? {
            roots.add(certificate.map_err(file)?).map_err(|source| TracerError::Root { path: path.into(), source })?;
        }
    }
    if roots.is_empty() { Err(TracerError::NoRoots) } else { Ok(roots) }
}
