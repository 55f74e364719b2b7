use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::telemetry::log;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Running,
    ShuttingDown,
    EndingNow,
}

/// Sessions that echo. One is "in a transaction" from the byte `B` on until the byte `C`, and then outlives
/// `begin_shutdown`. After the byte `X` it outlives even `end_now`.
struct Echo {
    phase: watch::Sender<Phase>,
    threads: Mutex<Vec<ThreadId>>,
    peers: Mutex<Vec<Peer>>,
    reloads: Mutex<Vec<usize>>,
    dropped: Arc<AtomicUsize>,
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Echo {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: watch::Sender::new(Phase::Running),
            threads: Mutex::default(),
            peers: Mutex::default(),
            reloads: Mutex::default(),
            dropped: Arc::default(),
        })
    }

    async fn echo(&self, mut stream: Stream) {
        let mut phase = self.phase.subscribe();
        let mut until = Some(Phase::ShuttingDown);
        loop {
            let told = async {
                match until {
                    Some(until) => drop(phase.wait_for(|phase| *phase >= until).await.unwrap()),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                byte = stream.read_u8() => {
                    let Ok(byte) = byte else { return };
                    match byte {
                        b'B' => until = Some(Phase::EndingNow),
                        b'C' => until = Some(Phase::ShuttingDown),
                        b'X' => until = None,
                        _ => {}
                    }
                    stream.write_u8(byte).await.unwrap();
                }
                () = told => {
                    stream.write_all(b"bye").await.unwrap();
                    return;
                }
            }
        }
    }
}

impl Sessions for Echo {
    fn session(self: Arc<Self>, stream: Stream, peer: Peer) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let _counted = CountDrop(Arc::clone(&self.dropped));
            self.threads.lock().unwrap().push(std::thread::current().id());
            self.peers.lock().unwrap().push(peer);
            self.echo(stream).await;
        })
    }

    fn stream(self: Arc<Self>, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.echo(stream).await })
    }

    fn begin_shutdown(&self) {
        self.phase.send_replace(Phase::ShuttingDown);
    }

    fn end_now(&self) {
        self.phase.send_replace(Phase::EndingNow);
    }

    fn hold_back(&self) {}

    fn go_ahead(&self) {}

    fn begin_leaving(&self) {}

    fn settled(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    fn cancel(self: Arc<Self>, _: i32, _: Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    fn stats(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn reload(&self, config: Arc<Config>) {
        self.reloads.lock().unwrap().push(config.cache.max_entries);
    }
}

/// A server that runs in the background of a test.
struct Running {
    echo: Arc<Echo>,
    shared: Shared,
    address: SocketAddr,
    http: SocketAddr,
    signals: mpsc::Sender<Signal>,
    serving: JoinHandle<()>,
}

fn start(threads: usize, patience_secs: u64, sources: Sources) -> Running {
    let mut config = Config::default();
    config.server.listen = vec!["127.0.0.1:0".into()];
    config.server.http = "127.0.0.1:0".into();
    config.server.worker_threads = threads;
    config.server.shutdown_timeout_secs = patience_secs;
    let echo = Echo::new();
    let shared = Shared::new(config);
    let server = opened(shared.clone(), Arc::clone(&echo)).unwrap();
    let sockets::Place::Tcp(address) = server.listeners[0].places()[0] else { panic!("a TCP address") };
    let http = server.http.as_ref().unwrap().addresses()[0];
    let (signals, receiver) = mpsc::channel(4);
    let log_config = crate::config::Log { level: "off".into(), ..Default::default() };
    let (_, log) = log::subscriber(&log_config, std::io::sink, false).unwrap();
    let serving = tokio::spawn(async move { server.serve(receiver, &sources, &log).await });
    Running { echo, shared, address, http, signals, serving }
}

fn opened(shared: Shared, echo: Arc<Echo>) -> Result<Server<Echo>, ServerError> {
    let sockets = Sockets::open(&shared.config, &mut Inherited::default())?;
    Server::start(shared, echo, sockets, ServiceManager::default())
}

/// Connects and says one byte, and so knows that the session runs.
async fn client(address: SocketAddr, say: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    exchange(&mut stream, say).await;
    stream
}

async fn exchange(stream: &mut TcpStream, say: u8) {
    stream.write_u8(say).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), say);
}

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A session that is dropped with its socket may reset it.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn clients_are_spread_over_the_workers() {
    let server = start(3, 30, Sources::default());
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(client(server.address, b'.').await);
    }
    let threads = server.echo.threads.lock().unwrap().clone();
    let mut distinct: Vec<ThreadId> = Vec::new();
    for thread in &threads {
        if !distinct.contains(thread) {
            distinct.push(*thread);
        }
    }
    assert_eq!(distinct.len(), 3);
    assert!(!distinct.contains(&std::thread::current().id()));
    for thread in distinct {
        assert_eq!(threads.iter().filter(|other| **other == thread).count(), 3);
    }
    let peers: Vec<Peer> = clients.iter().map(|client| Peer::Tcp(client.local_addr().unwrap())).collect();
    assert_eq!(*server.echo.peers.lock().unwrap(), peers);
}

#[tokio::test]
async fn shutdown_lets_transactions_finish_and_nobody_in() {
    let server = start(2, 3600, Sources::default());
    let idle = client(server.address, b'.').await;
    let mut busy = client(server.address, b'B').await;
    assert!(http::tests::fetch(server.http, "/health/ready").await.starts_with("HTTP/1.1 200"));

    server.signals.send(Signal::Terminate).await.unwrap();
    assert_eq!(rest(idle).await, b"bye");
    assert!(TcpStream::connect(server.address).await.is_err());
    let ready = http::tests::fetch(server.http, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("shutting down"), "{ready}");

    exchange(&mut busy, b'.').await;
    assert!(!server.serving.is_finished());
    exchange(&mut busy, b'C').await;
    assert_eq!(rest(busy).await, b"bye");
    server.serving.await.unwrap();
    assert_eq!(server.echo.dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_second_signal_ends_transactions() {
    let server = start(1, 3600, Sources::default());
    let busy = client(server.address, b'B').await;
    server.signals.send(Signal::Terminate).await.unwrap();
    server.signals.send(Signal::Reload).await.unwrap();
    server.signals.send(Signal::Terminate).await.unwrap();
    assert_eq!(rest(busy).await, b"bye");
    server.serving.await.unwrap();
}

#[tokio::test]
async fn when_time_is_up_transactions_are_ended() {
    let server = start(1, 0, Sources::default());
    let busy = client(server.address, b'B').await;
    server.signals.send(Signal::Terminate).await.unwrap();
    assert_eq!(rest(busy).await, b"bye");
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_session_that_will_not_end_is_dropped() {
    let server = start(1, 0, Sources::default());
    let stubborn = client(server.address, b'X').await;
    server.signals.send(Signal::Terminate).await.unwrap();
    server.serving.await.unwrap();
    assert_eq!(rest(stubborn).await, b"");
    assert_eq!(server.echo.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_invalid_configuration_is_not_loaded_and_a_valid_one_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let sources = Sources { path: Some(file.path().into()), ..Sources::default() };
    let server = start(1, 30, sources);
    let mut idle = client(server.address, b'.').await;
    let reload = async |text: &str| {
        // A signal is taken from the channel and obeyed without a pause on this same thread, so an empty channel means obeyed.
        std::fs::write(file.path(), text).unwrap();
        server.signals.send(Signal::Reload).await.unwrap();
        while server.signals.capacity() < server.signals.max_capacity() {
            tokio::task::yield_now().await;
        }
    };
    reload("[cache]\nmax_entries = 7").await;
    reload("[cache]\nmax_entries = \"lots\"").await;
    exchange(&mut idle, b'.').await;
    reload("[cache]\nmax_entries = 8").await;
    server.signals.send(Signal::Terminate).await.unwrap();
    assert_eq!(rest(idle).await, b"bye");
    server.serving.await.unwrap();
    assert_eq!(*server.echo.reloads.lock().unwrap(), [7, 8]);
}

#[tokio::test]
async fn a_taken_address_is_an_error_and_no_panic() {
    let server = start(1, 30, Sources::default());
    let mut config = Config::clone(&server.shared.config);
    config.server.listen = vec![server.address.to_string()];
    let error = opened(Shared::new(config), Echo::new()).err().unwrap();
    assert!(matches!(error, ServerError::Listen(ListenError::Bind { .. })), "{error}");
}
