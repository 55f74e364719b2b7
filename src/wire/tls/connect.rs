//! The TLS client that talks to the upstream, with libpq's `sslmode`.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::{ALPN, TlsError, certificates, names, private_key, provider, root_store};
use crate::config::{TlsMode, Upstream};
use crate::wire::stream::Stream;

/// Makes TLS streams of connections to the upstream.
///
/// What is checked, as in libpq: nothing under `prefer` and `require` without `sslrootcert`; the chain under these with
/// it and under `verify-ca`; the chain and the host's name under `verify-full`. That the server owns the key of the
/// certificate it shows is always checked. One thing is stricter than in libpq: certificates of X.509 version 1 are
/// refused, whatever the mode.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    mode: TlsMode,
    config: Arc<ClientConfig>,
}

impl UpstreamTls {
    pub fn new(config: &Upstream) -> Result<Self, TlsError> {
        let provider = provider();
        let verifier = Verifier {
            trust: Trust::new(config)?,
            checks_name: config.sslmode == TlsMode::VerifyFull,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let wants_tls = !matches!(config.sslmode, TlsMode::Disable | TlsMode::Allow);
        let mut client = if wants_tls && !config.sslcert.is_empty() {
            builder
                .with_client_auth_cert(certificates(&config.sslcert)?, private_key(&config.sslkey)?)
                .map_err(|source| TlsError::Pair { cert: config.sslcert.clone(), key: config.sslkey.clone(), source })?
        } else {
            builder.with_no_client_auth()
        };
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { mode: config.sslmode, config: Arc::new(client) })
    }

    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Shakes hands. `host` is the name that the configuration gives the server.
    pub async fn connect(&self, stream: Stream, host: &str) -> io::Result<Stream> {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(error) if self.mode == TlsMode::VerifyFull => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
            }
            // Nobody looks at the name; an address keeps it out of the handshake.
            Err(_) => ServerName::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        Ok(Stream::ToUpstream(Box::new(connector.connect(name, stream).await?)))
    }
}

/// Whom we believe.
#[derive(Debug)]
enum Trust {
    Anyone,
    /// The certificates are those of the store, as they are in the file.
    Roots {
        store: RootCertStore,
        certificates: Vec<CertificateDer<'static>>,
    },
}

impl Trust {
    fn new(config: &Upstream) -> Result<Self, TlsError> {
        match (config.sslmode, config.sslrootcert.as_str()) {
            (TlsMode::Disable | TlsMode::Allow, _) => Ok(Self::Anyone),
            (TlsMode::VerifyFull, "system") => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if store.is_empty() {
                    return Err(TlsError::NoSystemRoots);
                }
                Ok(Self::Roots { store, certificates: Vec::new() })
            }
            (_, "system") => Err(TlsError::WeakMode),
            (TlsMode::VerifyCa | TlsMode::VerifyFull, "") => Err(TlsError::NoRoots),
            (_, "") => Ok(Self::Anyone),
            (_, path) => {
                let certificates = certificates(path)?;
                Ok(Self::Roots { store: root_store(path, &certificates)?, certificates })
            }
        }
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    checks_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Trust::Roots { store, certificates } = &self.trust else { return Ok(()) };
        // A server whose self-signed certificate is itself the trusted one: webpki refuses a CA as a server, libpq does
        // not, and many small installations are made so.
        if certificates.iter().any(|trusted| trusted == end_entity) {
            let valid = names::is_valid_at(end_entity, now.as_secs());
            return if valid { Ok(()) } else { Err(CertificateError::Expired.into()) };
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, store, intermediates, now, self.algorithms.all)
    }

    fn check_name(&self, end_entity: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
        let Err(error) = verify_server_name(&ParsedCertificate::try_from(end_entity)?, name) else { return Ok(()) };
        if names::is_only_name(end_entity, &name.to_str()) { Ok(()) } else { Err(error) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check_chain(end_entity, intermediates, now)?;
        if self.checks_name {
            self.check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
