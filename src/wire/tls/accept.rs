//! The TLS server that clients talk to.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;

use super::{ALPN, HTTP_ALPN, TlsError, certificates, private_key, provider, root_store};
use crate::config::{ClientTls, TlsMode};
use crate::wire::stream::Stream;

/// Makes TLS streams of clients' connections. Its certificates can be exchanged while it runs: handshakes that have begun
/// end with those they began with.
#[derive(Debug)]
pub struct ClientTlsAcceptor {
    offer: ArcSwap<Offer>,
    /// The protocol that is spoken within.
    alpn: &'static [u8],
}

#[derive(Debug)]
struct Offer {
    mode: TlsMode,
    config: Arc<ServerConfig>,
}

impl ClientTlsAcceptor {
    /// `None` where TLS is off.
    pub fn new(config: &ClientTls) -> Result<Option<Self>, TlsError> {
        Self::speaking(ALPN, config)
    }

    /// The same for clients that speak HTTP.
    pub fn for_http(config: &ClientTls) -> Result<Option<Self>, TlsError> {
        Self::speaking(HTTP_ALPN, config)
    }

    fn speaking(alpn: &'static [u8], config: &ClientTls) -> Result<Option<Self>, TlsError> {
        if config.mode == TlsMode::Disable {
            return Ok(None);
        }
        Ok(Some(Self { offer: ArcSwap::from_pointee(Offer::new(config, alpn)?), alpn }))
    }

    /// Reads everything anew. An error changes nothing.
    pub fn reload(&self, config: &ClientTls) -> Result<(), TlsError> {
        if config.mode == TlsMode::Disable {
            return Err(TlsError::Disabled);
        }
        self.offer.store(Arc::new(Offer::new(config, self.alpn)?));
        Ok(())
    }

    pub fn mode(&self) -> TlsMode {
        self.offer.load().mode
    }

    /// Shakes hands. The client has been told by a TLS alert when this fails.
    pub async fn accept(&self, stream: Stream) -> io::Result<Stream> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.offer.load().config));
        Ok(Stream::FromClient(Box::new(acceptor.accept(stream).await?)))
    }
}

impl Offer {
    fn new(config: &ClientTls, alpn: &[u8]) -> Result<Self, TlsError> {
        let provider = provider();
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match config.mode {
            TlsMode::VerifyCa | TlsMode::VerifyFull => {
                let roots = Arc::new(root_store(&config.ca_file, &certificates(&config.ca_file)?)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
            TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer | TlsMode::Require => builder.with_no_client_auth(),
        };
        let mut server =
            builder.with_single_cert(certificates(&config.cert_file)?, private_key(&config.key_file)?).map_err(
                |source| TlsError::Pair { cert: config.cert_file.clone(), key: config.key_file.clone(), source },
            )?;
        server.alpn_protocols = vec![alpn.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { mode: config.mode, config: Arc::new(server) })
    }
}
