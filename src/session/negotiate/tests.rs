use bytes::BufMut;
use tokio::net::UnixStream;

use super::*;
use crate::config::Upstream;
use crate::wire::startup::{put_cancel_request, put_ssl_request, put_startup};
use crate::wire::tls::UpstreamTls;
use crate::wire::tls::testing::{Authority, tcp_pair};

fn startup(user: &str) -> BytesMut {
    let mut out = BytesMut::new();
    put_startup(&mut out, 196_608, [(&b"user"[..], user.as_bytes())]);
    out
}

fn ssl_request() -> BytesMut {
    let mut out = BytesMut::new();
    put_ssl_request(&mut out);
    out
}

fn gssenc_request() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32(8);
    out.put_u32(80_877_104);
    out
}

async fn tls(stream: Stream, config: &Upstream) -> io::Result<Stream> {
    UpstreamTls::new(config).unwrap().connect(stream, "localhost").await
}

/// Sends each packet and awaits a one-byte answer to it.
async fn ask(stream: &mut Stream, packets: &[BytesMut]) -> io::Result<Vec<u8>> {
    let mut answers = Vec::new();
    for packet in packets {
        stream.write_all(packet).await?;
        answers.push(stream.read_u8().await?);
    }
    Ok(answers)
}

fn refusal(outcome: Result<(Stream, FirstPacket), NegotiateError>) -> ErrorResponse {
    match outcome {
        Err(NegotiateError::Refused(_, error)) => error,
        other => panic!("not a refusal: {other:?}"),
    }
}

fn is_gone(outcome: &Result<(Stream, FirstPacket), NegotiateError>) -> bool {
    matches!(outcome, Err(NegotiateError::Gone(_)))
}

/// A client that asks for TLS and then logs in as `user`.
async fn log_in(mut client: Stream, config: Upstream, user: &str) -> io::Result<Stream> {
    assert_eq!(ask(&mut client, &[ssl_request()]).await?, b"S");
    let mut client = tls(client, &config).await?;
    client.write_all(&startup(user)).await?;
    client.flush().await?;
    Ok(client)
}

#[tokio::test]
async fn an_ssl_request_leads_to_tls() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(TlsMode::Require);
    let (client, server) = tcp_pair().await;
    let client = log_in(client, authority.upstream(TlsMode::VerifyFull), "u");
    let (client, outcome) = tokio::join!(client, negotiate(server, Some(&acceptor)));
    client.unwrap();
    let (stream, packet) = outcome.unwrap();
    assert!(stream.is_tls());
    assert!(matches!(packet, FirstPacket::Startup(message) if message.user() == b"u"));
}

#[tokio::test]
async fn without_tls_the_answer_is_no_and_the_start_up_follows_in_clear() {
    let (mut client, server) = tcp_pair().await;
    let client = async {
        let answers = ask(&mut client, &[gssenc_request(), ssl_request()]).await.unwrap();
        client.write_all(&startup("u")).await.unwrap();
        answers
    };
    let (answers, outcome) = tokio::join!(client, negotiate(server, None));
    assert_eq!(answers, b"NN");
    assert!(matches!(outcome, Ok((Stream::Tcp(_), FirstPacket::Startup(_)))));
}

#[tokio::test]
async fn a_request_is_answered_once() {
    for (request, version) in [(ssl_request(), "1234.5679"), (gssenc_request(), "1234.5680")] {
        let (mut client, server) = tcp_pair().await;
        client.write_all(&[&request[..], &request[..]].concat()).await.unwrap();
        let error = refusal(negotiate(server, None).await);
        assert_eq!(error.code, sqlstate::FEATURE_NOT_SUPPORTED);
        assert!(error.message.contains(version), "{}", error.message);
    }
}

#[tokio::test]
async fn what_is_sent_in_clear_behind_an_ssl_request_is_never_a_packet() {
    let authority = Authority::new();
    for mode in [TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyFull] {
        let acceptor = authority.acceptor(mode);
        let (mut client, server) = tcp_pair().await;
        client.write_all(&[&ssl_request()[..], &startup("intruder")[..]].concat()).await.unwrap();
        assert!(is_gone(&negotiate(server, Some(&acceptor)).await), "{mode:?}");
        assert_eq!(client.read_u8().await.unwrap(), b'S');
    }
}

#[tokio::test]
async fn injected_bytes_break_an_honest_handshake() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(TlsMode::Prefer);
    let (mut client, server) = tcp_pair().await;
    let client = async {
        client.write_all(&[&ssl_request()[..], &startup("intruder")[..]].concat()).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'S');
        tls(client, &authority.upstream(TlsMode::Require)).await
    };
    // The server's stream goes with the outcome, so that the client does not wait for a server that has given up.
    let server = async { is_gone(&negotiate(server, Some(&acceptor)).await) };
    let (client, gone) = tokio::join!(client, server);
    assert!(client.is_err() && gone);
}

#[tokio::test]
async fn direct_tls_needs_alpn() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(TlsMode::Require);

    let (client, server) = tcp_pair().await;
    let client = async {
        let mut client = tls(client, &authority.upstream(TlsMode::VerifyFull)).await.unwrap();
        // Encrypted already: both are declined.
        let answers = ask(&mut client, &[ssl_request(), gssenc_request()]).await.unwrap();
        client.write_all(&startup("u")).await.unwrap();
        client.flush().await.unwrap();
        answers
    };
    let (answers, outcome) = tokio::join!(client, negotiate(server, Some(&acceptor)));
    assert_eq!(answers, b"NN");
    assert!(matches!(outcome, Ok((Stream::FromClient(_), FirstPacket::Startup(_)))));

    let (client, server) = tcp_pair().await;
    let (client, outcome) = tokio::join!(authority.connect_without_alpn(client), negotiate(server, Some(&acceptor)));
    assert!(client.is_ok() && is_gone(&outcome));
}

#[tokio::test]
async fn direct_tls_ends_where_tls_is_off() {
    let authority = Authority::new();
    let (client, server) = tcp_pair().await;
    let server = async { is_gone(&negotiate(server, None).await) };
    let (client, gone) = tokio::join!(authority.connect_without_alpn(client), server);
    assert!(client.is_err() && gone);
}

#[tokio::test]
async fn clear_text_is_refused_where_tls_is_required_except_to_cancel() {
    let authority = Authority::new();
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let acceptor = authority.acceptor(mode);
        let (mut client, server) = tcp_pair().await;
        client.write_all(&startup("u")).await.unwrap();
        let error = refusal(negotiate(server, Some(&acceptor)).await);
        assert_eq!(error.code, sqlstate::INVALID_AUTHORIZATION, "{mode:?}");
        assert!(error.hint.is_some());

        let (mut client, server) = tcp_pair().await;
        let mut cancel = BytesMut::new();
        put_cancel_request(&mut cancel, 7, b"1234");
        client.write_all(&cancel).await.unwrap();
        let (_, packet) = negotiate(server, Some(&acceptor)).await.unwrap();
        assert_eq!(packet, FirstPacket::Cancel { pid: 7, secret: Bytes::from_static(b"1234") });
    }
    for mode in [TlsMode::Allow, TlsMode::Prefer] {
        let (mut client, server) = tcp_pair().await;
        client.write_all(&startup("u")).await.unwrap();
        assert!(negotiate(server, Some(&authority.acceptor(mode))).await.is_ok(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_good_enough_and_never_encrypted() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(TlsMode::VerifyFull);
    let (client, server) = UnixStream::pair().unwrap();
    let mut client = Stream::Unix(client);
    let client = async {
        let answers = ask(&mut client, &[ssl_request()]).await.unwrap();
        client.write_all(&startup("u")).await.unwrap();
        answers
    };
    let (answers, outcome) = tokio::join!(client, negotiate(Stream::Unix(server), Some(&acceptor)));
    assert_eq!(answers, b"N");
    assert!(matches!(outcome, Ok((Stream::Unix(_), FirstPacket::Startup(_)))));
}

#[tokio::test]
async fn under_verify_full_the_certificate_must_be_the_users() {
    let authority = Authority::new();
    let (sslcert, sslkey) = authority.issue("alice", &[]);
    let config = Upstream { sslcert, sslkey, ..authority.upstream(TlsMode::VerifyFull) };
    for (mode, user, passes) in
        [(TlsMode::VerifyFull, "alice", true), (TlsMode::VerifyFull, "bob", false), (TlsMode::VerifyCa, "bob", true)]
    {
        let acceptor = authority.acceptor(mode);
        let (client, server) = tcp_pair().await;
        let (client, outcome) = tokio::join!(log_in(client, config.clone(), user), negotiate(server, Some(&acceptor)));
        client.unwrap();
        if passes {
            assert!(outcome.is_ok(), "{mode:?} {user}");
        } else {
            assert_eq!(refusal(outcome).code, sqlstate::INVALID_AUTHORIZATION);
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_and_nonsense_is_refused() {
    for part in [0, 3, 9] {
        let (mut client, server) = tcp_pair().await;
        client.write_all(&startup("u")[..part]).await.unwrap();
        drop(client);
        assert!(is_gone(&negotiate(server, None).await), "{part}");
    }
    let (mut client, server) = tcp_pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(refusal(negotiate(server, None).await).code, sqlstate::PROTOCOL_VIOLATION);
}
