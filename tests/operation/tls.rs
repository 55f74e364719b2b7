//! TLS on both sides.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::certificates::{Files, issue};
use crate::harness::raw::{PROTOCOL_3_0, Raw, startup};
use crate::harness::tool::psql;
use crate::harness::{Options, Stage, cluster::tls_cluster, within};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn with_tls(mode: &str, files: &Files) -> Options {
    Options::default()
        .key("tls.mode", mode)
        .key("tls.cert_file", files.certificate.display())
        .key("tls.key_file", files.key.display())
        .key("tls.ca_file", files.authority.display())
}

fn connection(stage: &Stage, more: &str) -> String {
    format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=postgres dbname={} {more}",
        stage.proxy.port, stage.database
    )
}

#[tokio::test]
async fn a_client_may_require_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    let stage = Stage::with(with_tls("prefer", &files)).await;
    let root = files.authority.display();
    for mode in [
        "sslmode=disable".into(),
        "sslmode=require".into(),
        format!("sslmode=verify-ca sslrootcert={root}"),
        format!("sslmode=verify-full sslrootcert={root}"),
    ] {
        assert_eq!(psql(&connection(&stage, &mode), &["SELECT 1"], &[]).await.ok(), "1\n", "{mode}");
    }
    let elsewhere = connection(&stage, &format!("sslmode=verify-full sslrootcert={root}"))
        .replace("host=localhost", "host=example.org");
    assert!(!psql(&elsewhere, &["SELECT 1"], &[]).await.success, "a certificate for another name was accepted");
}

#[tokio::test]
async fn a_proxy_may_require_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    let stage = Stage::with(with_tls("require", &files)).await;
    assert_eq!(psql(&connection(&stage, "sslmode=prefer"), &["SELECT 1"], &[]).await.ok(), "1\n");
    let refused = psql(&connection(&stage, "sslmode=disable"), &["SELECT 1"], &[]).await;
    assert!(!refused.success && refused.stderr.contains("FATAL"), "{refused:?}");
}

#[tokio::test]
async fn a_proxy_without_certificates_says_no() {
    let stage = Stage::new().await;
    let refused = psql(&connection(&stage, "sslmode=require"), &["SELECT 1"], &[]).await;
    assert!(!refused.success && refused.stderr.contains("server does not support SSL"), "{refused:?}");
}

#[tokio::test]
async fn client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    let (own, other) = (issue(dir.path(), "own", "postgres"), issue(dir.path(), "other", "somebody"));
    for (mode, other_is_welcome) in [("verify-ca", true), ("verify-full", false)] {
        let stage = Stage::with(with_tls(mode, &files)).await;
        let with = |files: &Files| {
            connection(
                &stage,
                &format!("sslmode=require sslcert={} sslkey={}", files.certificate.display(), files.key.display()),
            )
        };
        assert_eq!(psql(&with(&own), &["SELECT 1"], &[]).await.ok(), "1\n", "{mode}");
        let other = psql(&with(&other), &["SELECT 1"], &[]).await;
        assert_eq!(other.success, other_is_welcome, "{mode}: {other:?}");
        assert!(
            !psql(&connection(&stage, "sslmode=require"), &["SELECT 1"], &[]).await.success,
            "{mode} without a certificate"
        );
    }
}

#[tokio::test]
async fn the_way_to_the_server_is_encrypted_as_configured() {
    let authority = tls_cluster().dir.join("authority.crt");
    let database = tls_cluster().database().await;
    for (parameters, encrypted) in [
        ("sslmode=disable".to_string(), "f"),
        ("sslmode=prefer".into(), "t"),
        ("sslmode=require".into(), "t"),
        (format!("sslmode=verify-ca&sslrootcert={}", authority.display()), "t"),
        (format!("sslmode=verify-full&sslrootcert={}", authority.display()), "t"),
    ] {
        let url = format!("postgres://postgres@localhost:{}/{database}?{parameters}", tls_cluster().port);
        let stage = Stage::on(tls_cluster(), Options::default().upstream(url)).await;
        let client = stage.client().await;
        assert_eq!(
            client.one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await,
            encrypted,
            "{parameters}"
        );
    }
}

#[tokio::test]
async fn a_server_whose_certificate_does_not_fit_is_not_spoken_to() {
    let dir = tempfile::tempdir().unwrap();
    // An authority that has signed nothing here.
    let stranger = dir.path().join("stranger.crt");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(&stranger, params.self_signed(&key).unwrap().pem()).unwrap();
    let url = format!(
        "postgres://postgres@localhost:{}/postgres?sslmode=verify-full&sslrootcert={}",
        tls_cluster().port,
        stranger.display()
    );
    let proxy = crate::harness::Proxy::spawn(tls_cluster(), "postgres", &Options::default().upstream(url));
    crate::harness::wait_until("the proxy listens", async || {
        TcpStream::connect(("127.0.0.1", proxy.port)).await.is_ok()
    })
    .await;
    let mut raw = Raw::open(proxy.port).await;
    raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres")])).await;
    let frames = raw.until_closed().await;
    assert!(frames.last().and_then(|frame| frame.field('C')).is_some_and(|code| code.starts_with("08")), "{frames:?}");
}

#[tokio::test]
async fn plain_text_behind_an_ssl_request_is_not_carried_into_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    let stage = Stage::with(with_tls("prefer", &files)).await;
    let mut raw = Raw::open(stage.proxy.port).await;
    let injected = startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)]);
    raw.send(&[&SSL_REQUEST[..], &injected].concat()).await;
    let mut heard = Vec::new();
    let _ = within("the end", raw.stream.read_to_end(&mut heard)).await;
    assert!(!heard.contains(&b'Z') || heard.len() < 2, "injected plain text was obeyed: {heard:?}");
    assert!(heard.len() <= 1 || heard[1] == b'E' || heard[1] == 0x15, "{heard:?}");
    assert_eq!(psql(&connection(&stage, "sslmode=require"), &["SELECT 1"], &[]).await.ok(), "1\n");
}

async fn handshake(port: u16, authority: &Path, protocol: Option<&[u8]>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocol.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test]
async fn direct_tls_with_the_right_protocol_name() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    let stage = Stage::with(with_tls("prefer", &files)).await;
    let stream = handshake(stage.proxy.port, &files.authority, Some(b"postgresql")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
    let mut raw = Raw::over(stream);
    raw.start(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)]).await;
    assert_eq!(raw.query("SELECT 1").await[1].text(), "1");
    for protocol in [None, Some(&b"http/1.1"[..])] {
        // The handshake may succeed on the client's side before it hears of its end.
        if let Ok(stream) = handshake(stage.proxy.port, &files.authority, protocol).await {
            let mut raw = Raw::over(stream);
            let startup = startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)]);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &startup).await;
            let frames = raw.until_closed().await;
            assert!(!frames.iter().any(|frame| frame.tag == b'Z'), "direct TLS without ALPN was let in: {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_served_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    let stage = Stage::with(with_tls("prefer", &files)).await;
    let serves = async || {
        let stream = handshake(stage.proxy.port, &files.authority, Some(b"postgresql")).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let old = serves().await;
    let open = stage.client().await;
    issue(dir.path(), "proxy", "localhost");
    stage.proxy.signal("HUP");
    crate::harness::wait_until("the new certificate", async || serves().await != old).await;
    assert_eq!(open.one("SELECT 1").await, "1");
}
