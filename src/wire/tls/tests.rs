use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::testing::{Authority, tcp_pair};
use super::*;
use crate::config::{ClientTls, TlsMode, Upstream};

/// Shakes hands on both sides and passes a byte from the server to the client, which shows whether the server is content too.
async fn meet(server: &ClientTlsAcceptor, client: &Upstream) -> io::Result<(Stream, Stream)> {
    let (near, far) = tcp_pair().await;
    let client = async {
        let mut stream = UpstreamTls::new(client).unwrap().connect(near, &client.host).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    let server = async {
        let mut stream = server.accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let (client, server): (io::Result<_>, io::Result<_>) = tokio::join!(client, server);
    Ok((client?, server?))
}

fn with_host(mut upstream: Upstream, host: &str) -> Upstream {
    upstream.host = host.into();
    upstream
}

fn with_pair(upstream: Upstream, (sslcert, sslkey): (String, String)) -> Upstream {
    Upstream { sslcert, sslkey, ..upstream }
}

/// A server that shows this certificate.
fn server_with((cert_file, key_file): (String, String)) -> ClientTlsAcceptor {
    let config = ClientTls { mode: TlsMode::Prefer, cert_file, key_file, ca_file: String::new() };
    ClientTlsAcceptor::new(&config).unwrap().unwrap()
}

#[tokio::test]
async fn both_sides_agree_on_the_protocol() {
    let authority = Authority::new();
    let (client, server) =
        meet(&authority.acceptor(TlsMode::Require), &authority.upstream(TlsMode::VerifyFull)).await.unwrap();
    assert!(client.is_tls() && server.is_tls());
    assert!(has_postgresql_alpn(&client) && has_postgresql_alpn(&server));
    assert_eq!(peer_common_name(&server), None);
}

#[tokio::test]
async fn verify_full_checks_the_name_and_verify_ca_does_not() {
    let authority = Authority::new();
    let server = authority.acceptor(TlsMode::Prefer);
    for (mode, passes) in [(TlsMode::VerifyFull, false), (TlsMode::VerifyCa, true), (TlsMode::Require, true)] {
        let client = with_host(authority.upstream(mode), "db.example.org");
        assert_eq!(meet(&server, &client).await.is_ok(), passes, "{mode:?}");
    }
}

#[tokio::test]
async fn a_foreign_ca_passes_only_where_no_root_is_given() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let server = foreign.acceptor(TlsMode::Prefer);
    for mode in [TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        assert!(meet(&server, &authority.upstream(mode)).await.is_err(), "{mode:?}");
    }
    for sslmode in [TlsMode::Prefer, TlsMode::Require] {
        let client = Upstream { sslmode, host: "any_name /".into(), ..Upstream::default() };
        assert!(meet(&server, &client).await.is_ok(), "{sslmode:?}");
    }
}

#[tokio::test]
async fn certificates_made_after_the_manual_of_postgresql_pass() {
    let authority = Authority::new();
    let self_signed = authority.self_signed("db.example.org");
    let trusting = Upstream { sslrootcert: self_signed.0.clone(), ..authority.upstream(TlsMode::VerifyFull) };
    let server = server_with(self_signed);
    assert!(meet(&server, &with_host(trusting.clone(), "db.example.org")).await.is_ok());
    assert!(meet(&server, &with_host(trusting, "other.example.org")).await.is_err());

    let full = authority.upstream(TlsMode::VerifyFull);
    let only_common_name = server_with(authority.issue("db.example.org", &[]));
    assert!(meet(&only_common_name, &with_host(full.clone(), "db.example.org")).await.is_ok());
    let other_alternative = server_with(authority.issue("db.example.org", &["other.example.org"]));
    assert!(meet(&other_alternative, &with_host(full, "db.example.org")).await.is_err());
}

#[tokio::test]
async fn a_client_certificate_is_demanded_and_checked() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let server = authority.acceptor(TlsMode::VerifyCa);
    let client = authority.upstream(TlsMode::Require);
    assert!(meet(&server, &client).await.is_err());
    let stranger = with_pair(client.clone(), foreign.issue("alice", &[]));
    assert!(meet(&server, &stranger).await.is_err());
    let known = with_pair(client, authority.issue("alice", &[]));
    let (_client, server) = meet(&server, &known).await.unwrap();
    assert_eq!(peer_common_name(&server).as_deref(), Some("alice"));
}

#[tokio::test]
async fn bad_files_leave_the_old_certificates() {
    let (authority, renewed) = (Authority::new(), Authority::new());
    let server = authority.acceptor(TlsMode::Prefer);
    let mut config = renewed.client_tls(TlsMode::Require);
    let key_file = std::mem::replace(&mut config.key_file, authority.path("localhost.key"));
    assert!(matches!(server.reload(&config), Err(TlsError::Pair { .. })));
    config.key_file = renewed.path("missing.key");
    assert!(matches!(server.reload(&config), Err(TlsError::File { .. })));
    assert!(matches!(server.reload(&ClientTls::default()), Err(TlsError::Disabled)));
    assert_eq!(server.mode(), TlsMode::Prefer);
    assert!(meet(&server, &authority.upstream(TlsMode::VerifyFull)).await.is_ok());

    config.key_file = key_file;
    server.reload(&config).unwrap();
    assert_eq!(server.mode(), TlsMode::Require);
    assert!(meet(&server, &authority.upstream(TlsMode::VerifyFull)).await.is_err());
    assert!(meet(&server, &renewed.upstream(TlsMode::VerifyFull)).await.is_ok());
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let upstream = |sslmode, sslrootcert: &str| {
        UpstreamTls::new(&Upstream { sslmode, sslrootcert: sslrootcert.into(), ..Upstream::default() })
    };
    assert!(matches!(upstream(TlsMode::VerifyCa, ""), Err(TlsError::NoRoots)));
    assert!(matches!(upstream(TlsMode::Require, "system"), Err(TlsError::WeakMode)));
    assert!(matches!(upstream(TlsMode::Require, "/nonexistent/ca.crt"), Err(TlsError::File { .. })));
    let authority = Authority::new();
    authority.issue("a", &[]);
    assert!(matches!(upstream(TlsMode::VerifyCa, &authority.path("a.key")), Err(TlsError::NoCertificate(_))));
    assert!(ClientTlsAcceptor::new(&ClientTls::default()).unwrap().is_none());
}
