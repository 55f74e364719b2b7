use bytes::{Buf, Bytes};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::*;
use crate::wire::scram::{Client, ClientSecret, ScramKeys};

async fn message(client: &mut UnixStream) -> (u8, Bytes) {
    let tag = client.read_u8().await.unwrap();
    let mut body = vec![0; client.read_u32().await.unwrap() as usize - 4];
    client.read_exact(&mut body).await.unwrap();
    (tag, body.into())
}

async fn password(client: &mut UnixStream, body: &[u8]) {
    let mut out = vec![b'p'];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    client.write_all(&out).await.unwrap();
}

/// What a driver does with `password`, whatever it is asked for. Ends when it is told that it is in, or why not.
async fn driver(mut client: UnixStream, secret: &'static str) {
    let mut scram = None;
    loop {
        let (tag, mut body) = message(&mut client).await;
        if tag != b'R' {
            return;
        }
        match body.get_u32() {
            0 => return,
            5 => {
                let salt = *body.first_chunk::<4>().unwrap();
                let answer = md5::answer(&md5::stored("alice", secret), salt) + "\0";
                password(&mut client, answer.as_bytes()).await;
            }
            10 => {
                let exchange = Client::default();
                let first = exchange.first_message();
                let mut out = b"SCRAM-SHA-256\0".to_vec();
                out.extend_from_slice(&(first.len() as u32).to_be_bytes());
                out.extend_from_slice(first.as_bytes());
                password(&mut client, &out).await;
                scram = Some(exchange);
            }
            11 => {
                let (proof, _) = scram.take().unwrap().prove(&body, &ClientSecret::Password(secret)).unwrap();
                password(&mut client, proof.as_bytes()).await;
            }
            _ => {}
        }
    }
}

async fn authenticate(mode: AuthMode, known: Option<&str>, given: &'static str) -> Result<UpstreamSecret, AuthError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = tokio::spawn(driver(theirs, given));
    let source = UserSource::new("").unwrap();
    let mut stream = Stream::Unix(ours);
    let result = source.authenticate(&mut stream, mode, "alice", known.map(Secret::parse), None).await;
    drop(stream);
    // A refused client sees its connection end.
    let _ = client.await;
    result.map(|credentials| credentials.secret)
}

fn code(result: Result<UpstreamSecret, AuthError>) -> &'static str {
    match result {
        Err(AuthError::Refused(error)) => error.code,
        Err(AuthError::Gone) => "gone",
        Ok(_) => "in",
    }
}

#[tokio::test]
async fn a_right_password_is_let_in_and_gives_what_the_upstream_wants() {
    let hash = md5::stored("alice", "secret");
    assert!(
        matches!(authenticate(AuthMode::Md5, Some(&hash), "secret").await, Ok(UpstreamSecret::Md5(h)) if h == hash)
    );
    for mode in [AuthMode::Scram, AuthMode::Md5] {
        assert!(
            matches!(authenticate(mode, Some("secret"), "secret").await, Ok(UpstreamSecret::Password(p)) if p == "secret")
        );
    }
    assert!(matches!(authenticate(AuthMode::Trust, None, "").await, Ok(UpstreamSecret::None)));
}

#[tokio::test]
async fn a_scram_verifier_gives_the_clients_key() {
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    for mode in [AuthMode::Scram, AuthMode::Md5] {
        let secret = authenticate(mode, Some(verifier), "pencil").await;
        assert!(matches!(secret, Ok(UpstreamSecret::Scram(ScramKeys { .. }))));
    }
}

#[tokio::test]
async fn wrong_unknown_and_unfit_are_told_alike() {
    let hash = md5::stored("alice", "secret");
    for (mode, known) in [
        (AuthMode::Scram, Some("secret")),
        (AuthMode::Scram, Some(&*hash)),
        (AuthMode::Scram, None),
        (AuthMode::Md5, Some(&*hash)),
        (AuthMode::Md5, None),
    ] {
        assert_eq!(code(authenticate(mode, known, "wrong").await), "28P01", "{mode:?} {known:?}");
    }
}

#[tokio::test]
async fn a_lying_or_foreign_message_ends_only_that_client() {
    for bytes in [&b"p\0\0\0\x03"[..], b"p\x3f\0\0\0", b"Q\0\0\0\x05x"] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).await.unwrap();
        let source = UserSource::new("").unwrap();
        let mut stream = Stream::Unix(ours);
        let result = source.authenticate(&mut stream, AuthMode::Scram, "alice", None, None).await;
        assert_eq!(code(result.map(|credentials| credentials.secret)), "08P01");
    }
}
