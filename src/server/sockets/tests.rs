use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::sync::mpsc;

use super::*;
use crate::config;
use crate::server::listen::{Accepted, Listeners};

fn config(listen: &[&str], dir: &Path, mode: &str) -> Config {
    let server = config::Server {
        listen: listen.iter().map(ToString::to_string).collect(),
        unix_socket_dir: dir.to_str().unwrap().into(),
        unix_socket_mode: mode.into(),
        ..config::Server::default()
    };
    Config { server, ..Config::default() }
}

fn open(config: &Config) -> Result<Sockets, ListenError> {
    Sockets::open(config, &mut Inherited::default())
}

fn accept(sockets: &Sockets) -> (Listeners, mpsc::UnboundedReceiver<Accepted>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let clients = sockets.of(Role::Clients).unwrap();
    (Listeners::start(clients, move |accepted| drop(sender.send(accepted))).unwrap(), receiver)
}

fn tcp_address(sockets: &Sockets) -> SocketAddr {
    match sockets.places_of_clients().first() {
        Some(Place::Tcp(address)) => *address,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tcp_and_unix_clients_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = open(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let (listeners, mut accepted) = accept(&sockets);
    let address = tcp_address(&sockets);
    let file = dir.path().join(format!(".s.PGSQL.{}", address.port()));
    assert_eq!(listeners.places(), [Place::Tcp(address), Place::Unix(file.clone())]);

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
async fn the_socket_file_has_its_mode_and_goes_with_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = open(&config(&[], dir.path(), "0741")).unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o741);
    drop(sockets);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
    assert!(file.exists());
    let sockets = open(&config(&[], dir.path(), "0700")).unwrap();
    let (_listeners, mut accepted) = accept(&sockets);
    let _client = StdUnixStream::connect(&file).unwrap();
    assert!(matches!(accepted.recv().await.unwrap(), Accepted::Unix(_)));
}

#[tokio::test]
async fn a_socket_that_somebody_answers_on_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    let _other = std::os::unix::net::UnixListener::bind(&file).unwrap();
    assert!(matches!(open(&config(&[], dir.path(), "0700")), Err(ListenError::InUse(_))));
    assert!(StdUnixStream::connect(&file).is_ok());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(open(&config(&[], dir.path(), "0700")), Err(ListenError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_file_that_took_the_place_of_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".s.PGSQL.6432");
    let sockets = open(&config(&[], dir.path(), "0700")).unwrap();
    // Renamed into place, so that the file system cannot give the new file the inode of the old one.
    let other = dir.path().join("other");
    let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
    fs::rename(&other, &file).unwrap();
    drop(sockets);
    assert!(file.exists());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = open(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let taken = tcp_address(&sockets).to_string();
    let error = bind_tcp(&taken, |_| None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {taken}: ")), "{error}");
}

#[tokio::test]
async fn after_closing_nobody_can_connect() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = open(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let (mut listeners, _accepted) = accept(&sockets);
    let address = tcp_address(&sockets);
    drop(sockets);
    listeners.close().await;
    let error = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn another_process_gets_the_same_sockets_with_whoever_waits_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(&config(&["127.0.0.1:0"], dir.path(), "0700")).unwrap();
    let address = tcp_address(&old);
    let file = dir.path().join(format!(".s.PGSQL.{}", address.port()));
    let _tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let _unix = tokio::net::UnixStream::connect(&file).await.unwrap();

    let config = config(&[&address.to_string(), "127.0.0.1:0"], dir.path(), "0700");
    let taken = |sockets: &Sockets| Inherited(sockets.to_pass().unwrap());
    drop(Sockets::open(&config, &mut taken(&old)).unwrap());
    assert!(file.exists(), "who only looks takes nothing along");

    let mut new = Sockets::open(&config, &mut taken(&old)).unwrap();
    assert_eq!(new.places_of_clients().len(), 3, "what is missing is opened");
    old.leave();
    new.are_ours();
    assert!(file.exists());
    let (_listeners, mut accepted) = accept(&new);
    let (one, other) = (accepted.recv().await.unwrap(), accepted.recv().await.unwrap());
    assert!(matches!((&one, &other), (Accepted::Tcp(..), Accepted::Unix(_)) | (Accepted::Unix(_), Accepted::Tcp(..))));
    drop(new);
    assert!(!file.exists());
}

#[test]
fn what_the_service_manager_gives_is_told_by_name_or_address() {
    let mut config = Config::default();
    config.server.http = "127.0.0.1:6433".into();
    config.stream.listen = "127.0.0.1:6434".into();
    let at = |port| Place::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
    let told = [
        ("http", at(1), Role::Http),
        ("stream", at(1), Role::WebSockets),
        ("heliosproxy.socket", at(6433), Role::Http),
        ("heliosproxy.socket", at(6434), Role::WebSockets),
        ("heliosproxy.socket", at(5432), Role::Clients),
        ("", Place::Unix("/run/x".into()), Role::Clients),
    ];
    for (name, place, expected) in told {
        assert_eq!(role(name, &place, &config), expected, "{name:?} {place}");
    }
}

#[test]
fn what_is_given_stands_in_the_place_of_what_is_configured_and_once() {
    let mut config = Config::default();
    config.server.listen = vec!["192.0.2.1:1".into()];
    let give =
        |listener: &TcpListener, role| Passed { role, is_given: true, socket: listener.try_clone().unwrap().into() };
    let [clients, http] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let passed = vec![give(&clients, Role::Clients), give(&http, Role::Http), give(&clients, Role::Clients)];
    let sockets = Sockets::open(&config, &mut Inherited(passed)).unwrap();
    assert_eq!(sockets.places_of_clients(), [Place::Tcp(clients.local_addr().unwrap())]);
    assert_eq!(sockets.of(Role::Http).unwrap().len(), 1);
    assert!(sockets.to_pass().unwrap().iter().all(|passed| passed.is_given));
}
