//! Who gets a WebSocket.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::socket::StreamStage;
use crate::harness::certificates::issue;
use crate::harness::{Options, http};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn users_prove_who_they_are_in_every_mode() {
    for mode in ["relay", "scram", "md5"] {
        let stage = StreamStage::with(Options::default().arg("--auth").arg(mode), "").await;
        let user = format!("scram_{}", stage.stage.database);
        stage.stage.cluster.user(&user, "right", "scram").await;
        let mut socket = stage.open(&[("Authorization", &basic(&user, "right"))]).await.unwrap();
        for _ in 0..2 {
            assert_eq!(socket.run("SELECT session_user", &[]).await.rows, [json!([user])]);
        }
        let (status, text) = stage.refusal(&[("Authorization", &basic(&user, "wrong"))]).await;
        assert_eq!(status, 401);
        assert!(text.contains("password authentication failed"), "{mode}: {text}");
        for header in ["", "Basic", "Basic !", "Bearer x", "Digest x", &basic("nobody_at_all", "")] {
            let (status, _) = stage.refusal(&[("Authorization", header)]).await;
            assert_eq!(status, 401, "{mode}: {header}");
        }
        assert_eq!(stage.refusal(&[]).await.0, 401);
    }
}

#[tokio::test]
async fn permissions_are_the_users_own() {
    let stage = StreamStage::with(Options::default().arg("--auth").arg("relay"), "CREATE TABLE secrets (v int)").await;
    let user = format!("plain_{}", stage.stage.database);
    stage.stage.cluster.user(&user, "right", "scram").await;
    let mut socket = stage.open(&[("Authorization", &basic(&user, "right"))]).await.unwrap();
    assert_eq!(socket.run("SELECT * FROM secrets", &[]).await.sqlstate(), "42501");
}

#[tokio::test]
async fn a_token_stands_for_a_user() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    // Of "secret".
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let write =
        |digest: &str, user: &str| std::fs::write(&file, format!("\"{digest}\" \"{user}\" \"right\"\n")).unwrap();
    write(digest, "postgres");
    let options = Options::default().key("stream.token_file", file.display()).arg("--auth").arg("relay");
    let stage = StreamStage::with(options, "").await;
    let user = format!("token_{}", stage.stage.database);
    stage.stage.cluster.user(&user, "right", "scram").await;
    let right = ("Authorization", "Bearer secret");
    let mut socket = stage.open(&[right]).await.unwrap();
    assert_eq!(socket.run("SELECT session_user", &[]).await.rows, [json!(["postgres"])]);
    for wrong in [format!("Bearer {digest}"), "Bearer".into(), "Bearer secret2".into()] {
        assert_eq!(stage.refusal(&[("Authorization", &wrong)]).await.0, 401, "{wrong}");
    }
    // Pages can set no headers.
    let protocols = format!("heliosproxy, authorization.{}", URL_SAFE_NO_PAD.encode("Bearer secret"));
    stage.open(&[("Sec-WebSocket-Protocol", &protocols)]).await.unwrap();

    write(digest, &user);
    stage.stage.proxy.signal("HUP");
    crate::harness::wait_until("the token is another's", async || {
        let mut socket = stage.open(&[right]).await.unwrap();
        socket.run("SELECT session_user", &[]).await.rows == [json!([user])]
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let allowed = Options::default().key("stream.allowed_origins", "https://app.example.com,http://localhost:8000");
    let stage = StreamStage::with(allowed, "").await;
    let login = ("Authorization", "Basic cG9zdGdyZXM6");
    for origin in ["https://app.example.com", "http://localhost:8000"] {
        stage.open(&[login, ("Origin", origin)]).await.unwrap();
    }
    for origin in ["https://evil.example.com", "null", "https://app.example.com.evil.com", "http://app.example.com"] {
        assert_eq!(stage.refusal(&[login, ("Origin", origin)]).await.0, 403, "{origin}");
    }
    // By default no page may.
    let stage = StreamStage::new("").await;
    assert_eq!(stage.refusal(&[login, ("Origin", "http://localhost")]).await.0, 403);
}

#[tokio::test]
async fn the_proxys_limits_hold() {
    let stage = StreamStage::with(Options::default().key("server.max_clients", 1), "").await;
    let _only = stage.socket().await;
    let (status, text) = stage.refusal(&[("Authorization", "Basic cG9zdGdyZXM6")]).await;
    assert_eq!(status, 503);
    assert!(text.contains("too many clients"), "{text}");
}

#[tokio::test]
async fn what_is_no_websocket_is_answered_as_http() {
    let stage = StreamStage::new("").await;
    assert_eq!(http::get(stage.port, "/stream").await.unwrap().0, 426);
    assert_eq!(http::get(stage.port, "/metrics").await.unwrap().0, 404);
    let nowhere = format!("Basic {}", STANDARD.encode("postgres:"));
    let mut elsewhere = stage.request(&[("Authorization", &nowhere)]);
    *elsewhere.uri_mut() = format!("ws://127.0.0.1:{}/stream?database=no_such", stage.port).parse().unwrap();
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", stage.port)).await.unwrap();
    let Err(tokio_tungstenite::tungstenite::Error::Http(response)) =
        tokio_tungstenite::client_async(elsewhere, tcp).await
    else {
        panic!("there is no such database");
    };
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn with_tls_and_only_with_tls_if_that_is_demanded() {
    let dir = tempfile::tempdir().unwrap();
    let files = issue(dir.path(), "proxy", "localhost");
    for (mode, in_clear) in [("prefer", true), ("require", false)] {
        let options = Options::default()
            .key("tls.mode", mode)
            .key("tls.cert_file", files.certificate.display())
            .key("tls.key_file", files.key.display());
        let stage = StreamStage::with(options, "").await;
        let login = ("Authorization", "Basic cG9zdGdyZXM6");
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", stage.port)).await.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&files.authority).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
        tokio_tungstenite::client_async(stage.request(&[login]), tls).await.unwrap();
        match in_clear {
            true => drop(stage.open(&[login]).await.unwrap()),
            false => {
                let (status, text) = stage.refusal(&[login]).await;
                assert_eq!(status, 401);
                assert!(text.contains("without TLS"), "{text}");
            }
        }
    }
}
