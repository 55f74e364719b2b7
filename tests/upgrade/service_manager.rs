//! What systemd gives and is told.

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use tempfile::TempDir;

use super::scene::{Scene, until_alone};
use crate::harness::raw::{PROTOCOL_3_0, Raw, startup, tags};
use crate::harness::{Options, Stage, wait_until};

/// Reads what a service manager would.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { dir, socket, heard: Vec::new() }
    }

    fn path(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// Waits for a message with this line, and returns it.
    async fn hears(&mut self, line: &str) -> String {
        let mut found = None;
        wait_until(line, async || {
            let mut buffer = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            let place = self.heard.iter().position(|message| message.lines().any(|its| its == line));
            found = place.map(|place| self.heard.drain(..=place).next_back().unwrap());
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

#[tokio::test]
async fn it_is_told_of_each_state() {
    let mut manager = Manager::new();
    let options = Options::default().variable("NOTIFY_SOCKET", manager.path()).variable("WATCHDOG_USEC", 60_000);
    let mut stage = Stage::with(options).await;
    let ready = manager.hears("READY=1").await;
    assert!(ready.lines().any(|line| line == format!("MAINPID={}", stage.proxy.pid())), "{ready}");
    manager.hears("WATCHDOG=1").await;
    stage.proxy.signal("HUP");
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1").await;
    stage.proxy.signal("TERM");
    manager.hears("STOPPING=1").await;
    stage.proxy.ended().await;
}

#[tokio::test]
async fn sigusr2_starts_a_process_that_takes_over() {
    let mut manager = Manager::new();
    let options = Options::default().key("auth.mode", "trust").key("auth.auth_query", "");
    let mut scene = Scene::new(options.variable("NOTIFY_SOCKET", manager.path()), "").await;
    manager.hears("READY=1").await;
    let client = scene.stage.client().await;
    scene.stage.proxy.signal("USR2");
    let ready = manager.hears("READY=1").await;
    let pid: u32 = ready.lines().find_map(|line| line.strip_prefix("MAINPID=")).unwrap().parse().unwrap();
    assert_ne!(pid, scene.stage.proxy.pid());
    scene.stage.cluster.guard(pid);
    client.run("SELECT 1").await;
    let other = scene.stage.client().await;
    drop(client);
    assert_eq!(scene.stage.proxy.ended().await, Some(0), "{:?}", manager.heard);
    other.run("SELECT 1").await;
    assert!(!manager.heard.iter().any(|message| message.contains("STOPPING")), "the service goes on");
    until_alone(&scene.stage.proxy).await;
    drop(other);
    std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
    manager.hears("STOPPING=1").await;
}

#[tokio::test]
async fn sigusr2_without_a_directory_does_nothing() {
    let stage = Stage::new().await;
    stage.proxy.signal("USR2");
    wait_until("it says why", async || stage.proxy.log_text().contains("server.takeover_dir")).await;
    stage.client().await.run("SELECT 1").await;
}

/// An ephemeral port would be one that others may have, too.
fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind(("127.0.0.1", crate::harness::port::free())).unwrap()
}

async fn starts(raw: &mut Raw, database: &str) {
    raw.start(PROTOCOL_3_0, &[("user", "postgres"), ("database", database)]).await;
    assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ");
}

#[tokio::test]
async fn clients_connect_to_the_sockets_that_it_gives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let (tcp, unix) = (listener(), UnixListener::bind(&path).unwrap());
    let port = tcp.local_addr().unwrap().port();
    let options = Options::default().socket(tcp.try_clone().unwrap()).socket(unix.try_clone().unwrap());
    let mut stage = Stage::with(options.clone()).await;
    starts(&mut Raw::open(port).await, &stage.database).await;
    starts(&mut Raw::open_unix(&path).await, &stage.database).await;
    let configured = tokio::net::TcpStream::connect(("127.0.0.1", stage.proxy.port)).await;
    assert!(configured.is_err(), "what is given stands in the place of server.listen");

    // The service manager keeps them: whoever comes while no process is there is served by the next one.
    stage.proxy.signal("TERM");
    assert_eq!(stage.proxy.ended().await, Some(0));
    assert!(path.exists());
    let mut early = [Raw::open(port).await, Raw::open_unix(&path).await];
    for raw in &mut early {
        raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)])).await;
    }
    stage.proxy = stage.proxy.successor(stage.cluster, &stage.database, &options).await;
    for raw in &mut early {
        raw.until_ready().await;
        assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ");
    }
}

#[tokio::test]
async fn a_socket_for_http_is_told_by_its_name() {
    let (clients, http) = (listener(), listener());
    let port = http.local_addr().unwrap().port();
    let options = Options::default().socket(clients.try_clone().unwrap()).socket(http.try_clone().unwrap());
    let options = options.variable("LISTEN_FDNAMES", "heliosproxy.socket:http");
    let stage = {
        let database = crate::harness::cluster().database().await;
        let proxy = crate::harness::Proxy::spawn(crate::harness::cluster(), &database, &options);
        Stage { database, proxy, cluster: crate::harness::cluster() }
    };
    wait_until("health is served there", async || {
        crate::harness::http::get(port, "/health/ready").await.is_some_and(|(code, _)| code == 200)
    })
    .await;
    starts(&mut Raw::open(clients.local_addr().unwrap().port()).await, &stage.database).await;
}

#[tokio::test]
async fn what_is_no_listening_socket_is_refused() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let database = crate::harness::cluster().database().await;
    let mut proxy = crate::harness::Proxy::spawn(crate::harness::cluster(), &database, &Options::default().socket(one));
    assert_eq!(proxy.ended().await, Some(1));
    assert!(proxy.log_text().contains("is not a listening TCP or Unix socket"), "{}", proxy.log_text());
}

#[tokio::test]
async fn what_it_gave_is_passed_on_to_a_newer_process() {
    let tcp = listener();
    let port = tcp.local_addr().unwrap().port();
    let given = Options::default().key("auth.mode", "trust").key("auth.auth_query", "").socket(tcp);
    let mut scene = Scene::new(given, "").await;
    // The newer one is given nothing by the service manager.
    scene.options.sockets.clear();
    scene.options.env.retain(|(name, _)| name != "LISTEN_FDS");
    let mut staying = Raw::open(port).await;
    starts(&mut staying, &scene.stage.database).await;
    let mut old = scene.upgrade().await;
    starts(&mut Raw::open(port).await, &scene.stage.database).await;
    assert_eq!(tags(&staying.query("SELECT 1").await), "TDCZ");
    drop(staying);
    assert_eq!(old.ended().await, Some(0));
    starts(&mut Raw::open(port).await, &scene.stage.database).await;
}

/// The units that are packaged say what the proxy needs of them.
#[test]
fn the_units_fit() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let service = std::fs::read_to_string(packaging.join("heliosproxy.service")).unwrap();
    for line in ["Type=notify", "NotifyAccess=all", "RuntimeDirectory=heliosproxy", "WatchdogSec=60"] {
        assert!(service.lines().any(|its| its == line), "{line}");
    }
    let socket = std::fs::read_to_string(packaging.join("heliosproxy.socket")).unwrap();
    assert!(socket.contains("ListenStream=127.0.0.1:6432"));
}
