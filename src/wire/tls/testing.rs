//! Throw-away certificates and sockets for tests.

use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::{ClientTlsAcceptor, certificates, provider, root_store};
use crate::config::{ClientTls, TlsMode, Upstream};
use crate::wire::stream::Stream;

/// A CA whose files vanish with it.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (params, key) = (params("authority", &[], true), KeyPair::generate().unwrap());
        fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn ca(&self) -> String {
        self.path("ca.crt")
    }

    /// Files of a certificate and its key.
    pub(crate) fn issue(&self, common_name: &str, alternatives: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(common_name, alternatives, false).signed_by(&key, &self.issuer).unwrap();
        self.write(common_name, &certificate.pem(), &key)
    }

    /// A certificate that is its own CA, as `openssl req -x509` makes them.
    pub(crate) fn self_signed(&self, common_name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(common_name, &[], true).self_signed(&key).unwrap();
        self.write(common_name, &certificate.pem(), &key)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> (String, String) {
        let (cert, key_file) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        fs::write(&cert, certificate).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert, key_file)
    }

    /// A server for `localhost` whose clients' certificates come from this CA.
    pub(crate) fn client_tls(&self, mode: TlsMode) -> ClientTls {
        let (cert_file, key_file) = self.issue("localhost", &["localhost"]);
        ClientTls { mode, cert_file, key_file, ca_file: self.ca() }
    }

    pub(crate) fn acceptor(&self, mode: TlsMode) -> ClientTlsAcceptor {
        ClientTlsAcceptor::new(&self.client_tls(mode)).unwrap().unwrap()
    }

    /// An upstream whose certificate comes from this CA.
    pub(crate) fn upstream(&self, sslmode: TlsMode) -> Upstream {
        Upstream { host: "localhost".into(), sslmode, sslrootcert: self.ca(), ..Upstream::default() }
    }

    /// Shakes hands without naming a protocol.
    pub(crate) async fn connect_without_alpn(&self, stream: Stream) -> std::io::Result<Stream> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(root_store("ca", &certificates(&self.ca()).unwrap()).unwrap())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(Stream::ToUpstream(Box::new(stream)))
    }
}

fn params(common_name: &str, alternatives: &[&str], is_ca: bool) -> CertificateParams {
    let names: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// Both ends of a connection over the loopback.
pub(crate) async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Stream::Tcp(client), Stream::Tcp(listener.accept().await.unwrap().0))
}
