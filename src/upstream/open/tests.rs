use std::future::Future;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::wire::startup::FirstPacket;
use crate::wire::tls::testing::Authority;

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn target(config: &Upstream, port: u16) -> Target {
    at("127.0.0.1", config, port)
}

fn at(name: &str, config: &Upstream, port: u16) -> Target {
    Target { hosts: vec![Host { name: name.into(), port }], ..Target::new(config).unwrap() }
}

fn plain(sslmode: TlsMode) -> Upstream {
    Upstream { sslmode, ..Upstream::default() }
}

fn peer(port: u16) -> Peer {
    Peer { name: "127.0.0.1".into(), address: Address::Tcp(([127, 0, 0, 1], port).into()) }
}

async fn packet(stream: &mut Stream) -> FirstPacket {
    let length = stream.read_u32().await.unwrap();
    let mut raw = length.to_be_bytes().to_vec();
    raw.resize(length as usize, 0);
    stream.read_exact(&mut raw[4..]).await.unwrap();
    FirstPacket::decode(Bytes::from(raw)).unwrap()
}

/// Accepts one connection and answers its SSLRequest with `answer`.
async fn answering(listener: &TcpListener, answer: &[u8]) -> Stream {
    let mut stream = Stream::Tcp(listener.accept().await.unwrap().0);
    assert_eq!(packet(&mut stream).await, FirstPacket::Ssl);
    stream.write_all(answer).await.unwrap();
    stream
}

async fn opened(target: &Target, server: impl Future<Output = Stream>) -> Result<Stream, OpenError> {
    let (opened, _server) = tokio::join!(open(target), server);
    opened.map(|opened| opened.stream)
}

#[tokio::test]
async fn a_server_without_tls_is_taken_in_clear_only_by_prefer() {
    for mode in [TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let authority = Authority::new();
        let (listener, port) = listener().await;
        let target = target(&authority.upstream(mode), port);
        match opened(&target, answering(&listener, b"N")).await {
            Ok(stream) => assert!(mode == TlsMode::Prefer && !stream.is_tls()),
            Err(OpenError::NoTls) => assert_ne!(mode, TlsMode::Prefer),
            Err(other) => panic!("{mode:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn disable_and_allow_do_not_ask() {
    for mode in [TlsMode::Disable, TlsMode::Allow] {
        let (listener, port) = listener().await;
        let server = async { Stream::Tcp(listener.accept().await.unwrap().0) };
        let (stream, mut server) = {
            let target = target(&plain(mode), port);
            tokio::join!(open(&target), server)
        };
        drop(stream.unwrap());
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn tls_is_spoken_when_the_server_has_it() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(TlsMode::Prefer);
    for mode in [TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyFull] {
        let (listener, port) = listener().await;
        let target = at("localhost", &authority.upstream(mode), port);
        let server = async { acceptor.accept(answering(&listener, b"S").await).await.unwrap() };
        assert!(opened(&target, server).await.unwrap().is_tls());
    }
}

#[tokio::test]
async fn prefer_takes_a_new_connection_when_the_handshake_fails() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let acceptor = foreign.acceptor(TlsMode::Prefer);
    let (listener, port) = listener().await;
    let server = async {
        assert!(acceptor.accept(answering(&listener, b"S").await).await.is_err());
        Stream::Tcp(listener.accept().await.unwrap().0)
    };
    assert!(!opened(&target(&authority.upstream(TlsMode::Prefer), port), server).await.unwrap().is_tls());

    let server = async {
        let stream = answering(&listener, b"S").await;
        assert!(acceptor.accept(stream).await.is_err());
        // Any stream will do.
        Stream::Unix(UnixStream::pair().unwrap().0)
    };
    let error = opened(&target(&authority.upstream(TlsMode::VerifyCa), port), server).await.unwrap_err();
    assert!(matches!(error, OpenError::Handshake(_)));
}

#[tokio::test]
async fn text_in_clear_behind_the_answer_breaks_the_handshake() {
    let (listener, port) = listener().await;
    let injected = b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    let error = opened(&target(&plain(TlsMode::Require), port), answering(&listener, injected)).await.unwrap_err();
    assert!(matches!(error, OpenError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn an_error_instead_of_an_answer_is_not_shown() {
    let (listener, port) = listener().await;
    let error = opened(&target(&plain(TlsMode::Prefer), port), answering(&listener, b"Ebelieve me")).await.unwrap_err();
    assert!(matches!(error, OpenError::Answer(b'E')));
    assert!(!error.to_error_response().message.contains("believe"));
}

#[tokio::test]
async fn a_directory_means_its_unix_socket_without_tls() {
    let dir = TempDir::new().unwrap();
    let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5433")).unwrap();
    let target = at(&format!("{}/", dir.path().display()), &plain(TlsMode::Require), 5433);
    let server = async { Stream::Unix(listener.accept().await.unwrap().0) };
    assert!(matches!(opened(&target, server).await, Ok(Stream::Unix(_))));
}

#[tokio::test]
async fn a_cancel_request_is_over_when_the_server_has_closed() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(TlsMode::Prefer);
    let (listener, port) = listener().await;
    let target = target(&authority.upstream(TlsMode::VerifyCa), port);
    let server = async {
        let mut stream = acceptor.accept(answering(&listener, b"S").await).await.unwrap();
        packet(&mut stream).await
    };
    let peer = peer(port);
    let (outcome, request) = tokio::join!(cancel(&target, &peer, 7, b"secret"), server);
    outcome.unwrap();
    assert_eq!(request, FirstPacket::Cancel { pid: 7, secret: Bytes::from_static(b"secret") });
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let (listener, port) = listener().await;
    let mut target = target(&plain(TlsMode::Require), port);
    target.connect_timeout = Duration::from_millis(50);
    let error = open(&target).await.unwrap_err();
    assert!(matches!(error, OpenError::Timeout(_)));
    assert_eq!(error.to_error_response().code, sqlstate::UNABLE_TO_CONNECT);
    assert!(matches!(cancel(&target, &peer(port), 7, b"secret").await, Err(OpenError::Timeout(_))));
    drop(listener);
    target.connect_timeout = Duration::from_secs(10);
    let error = open(&target).await.unwrap_err();
    assert!(matches!(error, OpenError::Connect(_)));
    let response = error.to_error_response();
    assert_eq!(response.code, sqlstate::UNABLE_TO_CONNECT);
    assert!(response.message.starts_with("could not connect to the upstream server: "), "{}", response.message);
}

#[tokio::test]
async fn a_connection_is_given_up_as_soon_as_the_configuration_says() {
    let (listener, port) = listener().await;
    let config = Upstream { tcp_user_timeout_ms: 1234, keepalive_secs: 77, ..plain(TlsMode::Disable) };
    let stream = open(&target(&config, port)).await.unwrap().stream;
    let Stream::Tcp(stream) = stream else { panic!("no TCP: {stream:?}") };
    let socket = SockRef::from(&stream);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(1234)));
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
    drop(listener);
}

#[tokio::test]
async fn hosts_are_tried_in_order_and_none_uses_up_the_time_of_the_next() {
    let ((first, first_port), (_silent, silent_port), (last, last_port)) =
        (listener().await, listener().await, listener().await);
    let host = |port| Host { name: "127.0.0.1".into(), port };
    let mut target = target(&plain(TlsMode::Prefer), first_port);
    target.connect_timeout = Duration::from_millis(200);
    target.hosts = vec![host(silent_port), host(first_port), host(last_port)];
    let (opened, _first) = tokio::join!(open(&target), answering(&first, b"N"));
    assert_eq!(opened.unwrap().peer, peer(first_port), "the one before it says nothing");
    drop(first);
    let (opened, _last) = tokio::join!(open(&target), answering(&last, b"N"));
    assert_eq!(opened.unwrap().peer, peer(last_port));

    target.attributes = SessionAttributes::Primary;
    let says = |value: &'static str| [(Bytes::from_static(b"in_hot_standby"), Bytes::from_static(value.as_bytes()))];
    assert!(target.is_contradicted_by(&says("on")) && !target.is_contradicted_by(&says("off")));
    assert!(!target.is_contradicted_by(&[]), "a server before PostgreSQL 14 does not say");
    assert!(matches!(open(&target).await, Err(OpenError::NoneFits)), "nobody has looked which it is");
    target.chosen.store(Some(Arc::new(host(last_port))));
    let (opened, _last) = tokio::join!(open(&target), answering(&last, b"N"));
    assert_eq!(opened.unwrap().peer, peer(last_port));
}
