//! TLS on both sides: [`ClientTlsAcceptor`] towards clients, [`UpstreamTls`] towards the upstream.
//!
//! Both name the protocol by ALPN, `postgresql` but for the WebSocket endpoint's, and neither resumes sessions: PostgreSQL does not, and a resumed session
//! would keep a certificate alive after its CA has been taken out of the configuration.

mod accept;
mod connect;
mod names;

pub use accept::ClientTlsAcceptor;
pub use connect::UpstreamTls;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::stream::Stream;

/// The protocol's name in ALPN (IANA's registry).
const ALPN: &[u8] = b"postgresql";
const HTTP_ALPN: &[u8] = b"http/1.1";

/// Why TLS cannot be set up from what is configured.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    File { path: String, source: pem::Error },
    #[error("{0} holds no certificate")]
    NoCertificate(String),
    #[error("{path} holds a certificate that cannot be a CA's: {source}")]
    Root { path: String, source: rustls::Error },
    #[error("certificate {cert} and key {key} cannot be used: {source}")]
    Pair { cert: String, key: String, source: rustls::Error },
    #[error("client certificates cannot be checked: {0}")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    #[error("the system's store holds no CA certificate")]
    NoSystemRoots,
    #[error("upstream.sslrootcert = \"system\" needs upstream.sslmode = \"verify-full\"")]
    WeakMode,
    #[error("upstream.sslmode verifies the server, which needs upstream.sslrootcert")]
    NoRoots,
    #[error("tls.mode cannot become \"disable\" in a running proxy")]
    Disabled,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The common name of the certificate that a client has proved to own; `None` if it showed none, or one without a name.
pub fn peer_common_name(stream: &Stream) -> Option<String> {
    match stream {
        Stream::FromClient(tls) => names::common_name(tls.get_ref().1.peer_certificates()?.first()?),
        Stream::Local(_, caller) => caller.common_name.clone(),
        Stream::Tcp(_) | Stream::Unix(_) | Stream::ToUpstream(_) => None,
    }
}

/// The two sides have agreed on `postgresql` by ALPN.
pub fn has_postgresql_alpn(stream: &Stream) -> bool {
    let agreed = match stream {
        Stream::FromClient(tls) => tls.get_ref().1.alpn_protocol(),
        Stream::ToUpstream(tls) => tls.get_ref().1.alpn_protocol(),
        Stream::Tcp(_) | Stream::Unix(_) | Stream::Local(..) => None,
    };
    agreed == Some(ALPN)
}

/// Named here and not taken from the process, so that nothing depends on who installed a default first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { path: path.into(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<Vec<_>, _>>().map_err(file)?;
    if found.is_empty() { Err(TlsError::NoCertificate(path.into())) } else { Ok(found) }
}

fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::File { path: path.into(), source })
}

fn root_store(path: &str, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|source| TlsError::Root { path: path.into(), source })?;
    }
    Ok(roots)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
