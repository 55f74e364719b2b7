use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::sync::mpsc;

use super::*;

fn config(listen: &[&str], dir: &Path, mode: &str) -> config::Server {
    config::Server {
        listen: listen.iter().map(ToString::to_string).collect(),
        unix_socket_dir: dir.to_str().unwrap().into(),
        unix_socket_mode: mode.into(),
        ..config::Server::default()
    }
}

fn start(config: &config::Server) -> Result<(Listeners, mpsc::UnboundedReceiver<Accepted>), ListenError> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let listeners = Listeners::start(config, move |accepted| drop(sender.send(accepted)))?;
    Ok((listeners, receiver))
}

#[tokio::test]
async fn tcp_and_unix_clients_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (listeners, mut accepted) = start(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let address = listeners.tcp[0];
    let file = dir.path().join(format!(".s.PGSQL.{}", address.port()));
    assert_eq!(listeners.addresses(), [address.to_string(), file.display().to_string()]);

    let client = tokio::net::TcpStream::connect(address).await.unwrap();
    match accepted.recv().await.unwrap() {
        Accepted::Tcp(stream, peer) => {
            assert_eq!(peer, client.local_addr().unwrap());
            assert!(stream.nodelay().unwrap());
        }
        other => panic!("{other:?}"),
    }
    let _client = tokio::net::UnixStream::connect(&file).await.unwrap();
    assert!(matches!(accepted.recv().await.unwrap(), Accepted::Unix(_)));
}

#[tokio::test]
async fn the_socket_file_has_its_mode_and_goes_with_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    let (mut listeners, _accepted) = start(&config(&[], dir.path(), "0741")).unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o741);
    listeners.close().await;
    assert!(!file.exists());

    let (listeners, _accepted) = start(&config(&[], dir.path(), "0700")).unwrap();
    assert!(file.exists());
    drop(listeners);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
    assert!(file.exists());
    let (_listeners, mut accepted) = start(&config(&[], dir.path(), "0700")).unwrap();
    let _client = StdUnixStream::connect(&file).unwrap();
    assert!(matches!(accepted.recv().await.unwrap(), Accepted::Unix(_)));
}

#[tokio::test]
async fn a_socket_that_somebody_answers_on_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    let _other = std::os::unix::net::UnixListener::bind(&file).unwrap();
    assert!(matches!(start(&config(&[], dir.path(), "0700")), Err(ListenError::InUse(_))));
    assert!(StdUnixStream::connect(&file).is_ok());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(start(&config(&[], dir.path(), "0700")), Err(ListenError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_file_that_took_the_place_of_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    let (listeners, _accepted) = start(&config(&[], dir.path(), "0700")).unwrap();
    // Renamed into place, so that the file system cannot give the new file the inode of the old one.
    let other = dir.path().join("other");
    let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
    fs::rename(&other, &file).unwrap();
    drop(listeners);
    assert!(file.exists());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (listeners, _accepted) = start(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let taken = listeners.tcp[0].to_string();
    let error = bind_tcp(&taken).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {taken}: ")), "{error}");
}

#[tokio::test]
async fn after_closing_nobody_can_connect() {
    let dir = tempfile::tempdir().unwrap();
    let (mut listeners, _accepted) = start(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let address = listeners.tcp[0];
    listeners.close().await;
    let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
