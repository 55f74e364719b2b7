//! The real proxy binary as a child process.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Cluster, DEADLINE, http, port, wait_until};

const PROXY: &str = env!("CARGO_BIN_EXE_heliosproxy");

/// How a proxy is started. `upstream` is a URL; everything else goes on top of the defaults.
#[derive(Default, Clone)]
pub struct Options {
    pub upstream: Option<String>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// One or two listening sockets that it is given, as a service manager gives them.
    pub sockets: Vec<Arc<OwnedFd>>,
}

impl Options {
    /// One config key, for example `("pool.max_idle", "3")`.
    pub fn key(mut self, key: &str, value: impl ToString) -> Self {
        let name = format!("HELIOSPROXY_{}", key.replace('.', "_").to_uppercase());
        self.env.push((name, value.to_string()));
        self
    }

    /// Each client has a connection of its own, on which the server itself lets it in: the default, whatever `TEST_POOL_MODE` says.
    pub fn dedicated(self) -> Self {
        self.key("auth.mode", "relay").key("pool.mode", "session")
    }

    pub fn socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push(Arc::new(socket.into()));
        let count = self.sockets.len();
        self.variable("LISTEN_FDS", count)
    }

    /// A variable of its environment.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }

    pub fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string());
        self
    }

    pub fn upstream(mut self, url: impl ToString) -> Self {
        self.upstream = Some(url.to_string());
        self
    }
}

/// A running proxy; dropping it ends it. Its log is printed when the test fails.
pub struct Proxy {
    pub port: u16,
    pub http: u16,
    pub log: PathBuf,
    child: Child,
}

impl Proxy {
    /// Starts a proxy in front of `database` and waits until it says that it is ready. Tries other ports when somebody was
    /// quicker to take these.
    pub async fn start(cluster: &Cluster, database: &str, options: &Options) -> Self {
        for _ in 0..3 {
            let mut proxy = Self::spawn(cluster, database, options);
            match proxy.until_ready().await {
                Ok(()) => return proxy,
                Err(_) if proxy.log_text().contains("in use") => {}
                Err(what) => panic!("the proxy {what}"),
            }
        }
        panic!("every port was taken");
    }

    /// Starts a proxy and waits for nothing.
    pub fn spawn(cluster: &Cluster, database: &str, options: &Options) -> Self {
        let (port, http) = (port::free(), port::free());
        Self::spawn_at(cluster, database, options, port, http)
    }

    /// A further process with the addresses of this one. Waits until it accepts clients, or has ended.
    pub async fn successor(&self, cluster: &Cluster, database: &str, options: &Options) -> Self {
        let mut proxy = Self::spawn_at(cluster, database, options, self.port, self.http);
        wait_until("the new process accepts clients", async || !proxy.is_running() || proxy.says_ready()).await;
        proxy
    }

    fn says_ready(&self) -> bool {
        self.log_text().contains(&format!("pid={}", self.pid()))
    }

    fn spawn_at(cluster: &Cluster, database: &str, options: &Options, port: u16, http: u16) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let log = cluster.dir.join(format!("proxy-{port}-{}.log", STARTED.fetch_add(1, Ordering::Relaxed)));
        let output = File::create(&log).expect("a log file");
        let default = format!("postgres://postgres@127.0.0.1:{}/{database}", cluster.port);
        let mut sockets = options.sockets.iter().map(|socket| socket.try_clone().expect("one more handle").into());
        let mut command = if options.sockets.is_empty() { command(cluster) } else { activated(cluster) };
        let child = command
            .args(["--upstream", options.upstream.as_ref().unwrap_or(&default)])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--http", &format!("127.0.0.1:{http}")])
            .args(&options.args)
            .envs(shared_connections())
            .envs(options.env.iter().map(|(name, value)| (name, value)))
            .stdin(sockets.next().unwrap_or_else(Stdio::null))
            .stdout(sockets.next().unwrap_or_else(|| output.try_clone().expect("a second handle").into()))
            .stderr(output)
            .spawn()
            .expect("the proxy starts");
        cluster.guard(child.id());
        Self { port, http, log, child }
    }

    /// Waits for `/health/ready`; says what happened instead.
    pub async fn until_ready(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            if matches!(http::get(self.http, "/health/ready").await, Some((200, _))) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Err(format!("ended with {status} before it was ready"));
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        Err(format!("was not ready within {DEADLINE:?}"))
    }

    /// The sum of all series with this name and at least these labels, for example `name{label="value"}`.
    pub async fn metric(&self, wanted: &str) -> f64 {
        let (status, text) = http::get(self.http, "/metrics").await.expect("the proxy serves metrics");
        assert_eq!(status, 200, "GET /metrics: {text}");
        http::sum(&text, wanted)
    }

    /// Answers that came from the cache so far.
    pub async fn hits(&self) -> u64 {
        self.metric("heliosdb_cache_accesses_total{result=\"hit\"}").await as u64
    }

    /// All counters of the cache, for a failed test to show.
    pub async fn cache_counters(&self) -> String {
        let (_, text) = http::get(self.http, "/metrics").await.unwrap_or_default();
        text.lines().filter(|line| line.starts_with("heliosdb_cache")).collect::<Vec<_>>().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kilobytes of one line of the process's status: `VmRSS` now, `VmHWM` at its highest.
    pub fn memory_kb(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        found.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).expect("a number of kilobytes")
    }

    /// Sends a signal by its name, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().expect("kill");
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for the process to end; its exit code, or `None` if a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status.code();
            }
            assert!(start.elapsed() < DEADLINE, "the proxy did not end within {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already, which is what both calls are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log_text();
            let tail = log.char_indices().rev().nth(20_000).map_or(0, |(at, _)| at);
            eprintln!("--- log of the proxy on port {} ---\n{}--- end of log ---", self.port, &log[tail..]);
        }
    }
}

/// With `TEST_POOL_MODE` in the environment every proxy shares its connections in that mode, as far as a test says nothing else.
/// The proxy logs in by itself then, which the test servers let anybody do.
fn shared_connections() -> Vec<(&'static str, String)> {
    let Ok(mode) = std::env::var("TEST_POOL_MODE") else { return Vec::new() };
    vec![
        ("HELIOSPROXY_POOL_MODE", mode),
        ("HELIOSPROXY_AUTH_MODE", "trust".into()),
        ("HELIOSPROXY_POOL_MAX_UPSTREAM_CONNECTIONS", std::env::var("TEST_POOL_CONNECTIONS").unwrap_or("90".into())),
    ]
}

/// The binary, in a directory of no importance and with no `HELIOSPROXY_` variables of whoever runs the tests.
pub fn command(cluster: &Cluster) -> Command {
    prepared(cluster, PROXY)
}

/// The same, with the first two of its standard descriptors as the sockets that it is given.
fn activated(cluster: &Cluster) -> Command {
    let mut command = prepared(cluster, "sh");
    command.args(["-c", "exec 3<&0 4<&1 </dev/null >&2; LISTEN_PID=$$ exec \"$0\" \"$@\"", PROXY]);
    command
}

fn prepared(cluster: &Cluster, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELIOSPROXY_") {
            command.env_remove(name);
        }
    }
    command.current_dir(&cluster.dir);
    command
}
