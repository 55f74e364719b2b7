use tokio::net::UnixStream;

use super::*;
use crate::upstream::peer::Address;
use crate::wire::scram::{Server, Verifier};

/// A frame of the server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), data].concat())
}

fn welcome() -> Vec<u8> {
    [
        authentication(0, b""),
        message(b'S', b"server_version\x0015.0\0"),
        message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]),
        message(b'N', b"SNOTICE\0\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

async fn read_startup(server: &mut UnixStream) {
    let length = server.read_u32().await.unwrap() as usize;
    server.read_exact(&mut vec![0; length - 4]).await.unwrap();
}

async fn read_password(server: &mut UnixStream) -> Vec<u8> {
    assert_eq!(server.read_u8().await.unwrap(), b'p');
    let mut body = vec![0; server.read_u32().await.unwrap() as usize - 4];
    server.read_exact(&mut body).await.unwrap();
    body
}

/// Logs in to a server that does as `serve` says.
async fn login_to<F: Future<Output = ()> + Send + 'static>(
    secret: UpstreamSecret,
    serve: impl FnOnce(UnixStream) -> F,
) -> Result<Connection, LoginError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = tokio::spawn(serve(theirs));
    let parameters = [(Bytes::from_static(b"user"), Bytes::from_static(b"alice"))];
    let peer = Peer { name: String::new(), address: Address::Unix(String::new()) };
    let result = login(Opened { stream: Stream::Unix(ours), peer }, 196_608, &parameters, &secret).await;
    server.await.unwrap();
    result
}

#[tokio::test]
async fn the_welcome_is_kept() {
    let connection = login_to(UpstreamSecret::None, async |mut server| {
        read_startup(&mut server).await;
        server.write_all(&welcome()).await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!((connection.pid, &connection.secret[..]), (9, &[1, 2, 3, 4][..]));
    assert_eq!(connection.parameters, [(Bytes::from_static(b"server_version"), Bytes::from_static(b"15.0"))]);
    assert_eq!(connection.notices.len(), 1);
}

#[tokio::test]
async fn md5_and_clear_passwords_are_answered() {
    login_to(UpstreamSecret::Password("secret".into()), async |mut server| {
        read_startup(&mut server).await;
        server.write_all(&authentication(5, &[1, 2, 3, 4])).await.unwrap();
        let expected = md5::answer(&md5::stored("alice", "secret"), [1, 2, 3, 4]) + "\0";
        assert_eq!(read_password(&mut server).await, expected.as_bytes());
        server.write_all(&authentication(3, b"")).await.unwrap();
        assert_eq!(read_password(&mut server).await, b"secret\0");
        server.write_all(&welcome()).await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn recovered_keys_answer_scram() {
    let verifier = Verifier::of_password("u", "secret", &[7; 32]);
    // The keys as a client's proof gives them away.
    let client = Client::default();
    let server = Server::new(client.first_message().as_bytes(), verifier.clone()).unwrap();
    let (proof, _) = client.prove(server.first_message().as_bytes(), &ClientSecret::Password("secret")).unwrap();
    let (_, keys) = server.finish(proof.as_bytes()).unwrap();

    login_to(UpstreamSecret::Scram(keys), async |mut server| {
        read_startup(&mut server).await;
        server.write_all(&authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")).await.unwrap();
        let first = read_password(&mut server).await;
        let scram = Server::new(&first[scram::MECHANISM.len() + 5..], verifier).unwrap();
        server.write_all(&authentication(11, scram.first_message().as_bytes())).await.unwrap();
        let (last, _) = scram.finish(&read_password(&mut server).await).unwrap();
        server.write_all(&[authentication(12, last.as_bytes()), welcome()].concat()).await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_upstreams_own_error_is_kept() {
    let refused = login_to(UpstreamSecret::None, async |mut server| {
        read_startup(&mut server).await;
        server.write_all(&message(b'E', b"SFATAL\0C3D000\0Mno such database\0\0")).await.unwrap();
    })
    .await
    .unwrap_err();
    assert_eq!(refused.sqlstate().as_deref(), Some("3D000"));
    assert_eq!(refused.into_frame().unwrap()[0], b'E');
}

#[tokio::test]
async fn without_a_secret_the_client_is_told_what_to_do() {
    let refused = login_to(UpstreamSecret::None, async |mut server| {
        read_startup(&mut server).await;
        server.write_all(&authentication(3, b"")).await.unwrap();
    })
    .await
    .unwrap_err();
    assert!(refused.into_frame().unwrap_err().hint.unwrap().contains("auth.user_file"));
}

#[tokio::test]
async fn a_lying_length_is_not_believed() {
    let error = login_to(UpstreamSecret::None, async |mut server| {
        read_startup(&mut server).await;
        server.write_all(&[b'R', 0x3f, 0, 0, 0]).await.unwrap();
    })
    .await
    .unwrap_err();
    assert!(matches!(error, LoginError::Protocol(_)));
}
