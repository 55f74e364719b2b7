//! A throw-away PostgreSQL cluster.
//!
//! It ends with the test process, however that ends: a guardian shell holds the other end of a pipe, and when the pipe closes it
//! stops the server, the proxies that are left, and removes the directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Client, certificates, port};

/// Users are asked for a password when they are members of one of these roles; everybody else is trusted.
const AUTHENTICATION: &str = "\
local all +asks_scram scram-sha-256
host  all +asks_scram 127.0.0.1/32 scram-sha-256
host  all +asks_md5 127.0.0.1/32 md5
host  all +asks_password 127.0.0.1/32 password
host  all +rejected 127.0.0.1/32 reject
local all all trust
host  all all 127.0.0.1/32 trust
local replication all trust
host  replication all 127.0.0.1/32 trust
";

const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
max_connections = 200
max_prepared_transactions = 10
max_wal_senders = 4
wal_level = logical
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
shared_buffers = 128MB
timezone = 'UTC'
log_timezone = 'UTC'
";

const GUARDIAN: &str = r#"
while read -r pid; do pids="$pids $pid"; done
for pid in $pids; do
  [ "$(readlink "/proc/$pid/exe")" = "$PROXY" ] && kill -9 "$pid"
done
cd /
if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$BIN/pg_ctl" -D "$DIR/data" -m immediate stop
else "$BIN/pg_ctl" -D "$DIR/data" -m immediate stop; fi
rm -rf "$DIR"
"#;

pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    /// Outlives this process on purpose, so nobody waits for it.
    guardian: Mutex<Child>,
    databases: AtomicUsize,
}

/// The cluster that all tests of this binary share.
pub fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(false))
}

/// A second one, whose server offers TLS with a certificate for `localhost`.
pub fn tls_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(true))
}

impl Cluster {
    pub fn start(tls: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("heliosproxy-test-").tempdir().expect("temporary directory").keep();
        let guardian = Mutex::new(guardian(&dir));
        if is_root() {
            checked(Command::new("chown").arg("postgres").arg(&dir));
        }
        let cluster = Self { port: port::free(), guardian, databases: AtomicUsize::new(0), dir };
        cluster.initialise(tls);
        cluster.control("start", &[]);
        cluster
    }

    /// A streaming copy of another cluster.
    pub fn standby_of(primary: &Self) -> Self {
        let dir = tempfile::Builder::new().prefix("heliosproxy-test-").tempdir().expect("temporary directory").keep();
        let guardian = Mutex::new(guardian(&dir));
        if is_root() {
            checked(Command::new("chown").arg("postgres").arg(&dir));
        }
        let cluster = Self { port: port::free(), guardian, databases: AtomicUsize::new(0), dir };
        let source = format!("host=127.0.0.1 port={} user=postgres", primary.port);
        checked(
            cluster
                .command("pg_basebackup")
                .args(["--no-sync", "-R", "-X", "stream", "-c", "fast", "-d", &source, "-D"])
                .arg(cluster.data()),
        );
        let mut settings =
            fs::OpenOptions::new().append(true).open(cluster.data().join("postgresql.conf")).expect("postgresql.conf");
        write!(settings, "port = {}\nunix_socket_directories = '{}'\n", cluster.port, cluster.dir.display()).unwrap();
        cluster.control("start", &[]);
        cluster
    }

    fn initialise(&self, tls: bool) {
        let data = self.data();
        checked(
            self.command("initdb")
                .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
                .arg(&data),
        );
        let mut settings =
            fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("postgresql.conf");
        write!(settings, "{SETTINGS}port = {}\nunix_socket_directories = '{}'\n", self.port, self.dir.display())
            .unwrap();
        fs::write(data.join("pg_hba.conf"), AUTHENTICATION).unwrap();
        if tls {
            let files = certificates::issue(&self.dir, "server", "localhost");
            if is_root() {
                checked(Command::new("chown").arg("postgres").arg(&files.key));
            }
            write!(
                settings,
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
                files.certificate.display(),
                files.key.display()
            )
            .unwrap();
        }
    }

    /// `pg_ctl start`, `stop` or `restart`, waiting for the end of it.
    pub fn control(&self, verb: &str, options: &[&str]) {
        let log = self.dir.join("postgresql.log");
        let mut command = self.command("pg_ctl");
        command.arg("-w").arg("-D").arg(self.data()).arg("-l").arg(&log).args(options).arg(verb);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl");
        assert!(status.success(), "pg_ctl {verb} failed:\n{}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// A PostgreSQL program, run as the user that owns the cluster.
    pub fn command(&self, program: &str) -> Command {
        let program = binaries().join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.dir).env("LC_ALL", "C.UTF-8");
        command
    }

    /// As [`control`](Self::control), without blocking the tasks of this test.
    pub async fn turn(&'static self, verb: &'static str, options: &'static [&'static str]) {
        tokio::task::spawn_blocking(move || self.control(verb, options)).await.expect("pg_ctl ends well");
    }

    /// Sends a signal to every process of the server.
    pub fn signal_all(&self, name: &str) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("a running server");
        let postmaster = file.lines().next().expect("a first line");
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        // The postmaster first: a backend that it has just started would be missed otherwise.
        for pid in std::iter::once(postmaster).chain(children.split_whitespace()) {
            let _ = Command::new("kill").arg(format!("-{name}")).arg(pid).stderr(Stdio::null()).status();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends the process with this id, if it is still a proxy, when this test process ends.
    pub fn guard(&self, pid: u32) {
        let mut guardian = self.guardian.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = guardian.stdin.as_mut().expect("a pipe was asked for");
        writeln!(pipe, "{pid}").expect("the guardian reads");
    }

    /// Connects straight to the server as its superuser.
    pub async fn connect(&self, database: &str) -> Client {
        Client::connect(self.port, "postgres", database).await
    }

    /// A fresh database of an unused name.
    pub async fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres").await.run(&format!("CREATE DATABASE {name}")).await;
        name
    }

    /// A role that logs in with `password`, which the server asks for with `method`: scram, md5 or password.
    pub async fn user(&self, name: &str, password: &str, method: &str) {
        let stored = if method == "md5" { "md5" } else { "scram-sha-256" };
        self.connect("postgres")
            .await
            .run(&format!(
                "DO $$ BEGIN CREATE ROLE asks_{method}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
                 SET password_encryption = '{stored}';
                 CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE asks_{method}"
            ))
            .await;
    }
}

fn guardian(dir: &Path) -> Child {
    Command::new("sh")
        .args(["-c", GUARDIAN])
        .env("DIR", dir)
        .env("BIN", binaries())
        .env("PROXY", env!("CARGO_BIN_EXE_heliosproxy"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh")
}

/// Where PostgreSQL's server programs are: what `pg_config` says, else the newest of Debian's directories.
pub fn binaries() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let configured = Command::new("pg_config").arg("--bindir").output().ok();
        let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        versions.sort();
        let installed = versions.into_iter().rev().map(|(_, path)| path);
        configured
            .into_iter()
            .chain(installed)
            .find(|path| path.join("initdb").exists())
            .expect("PostgreSQL's initdb is nowhere; scripts/test.sh installs what the tests need")
    })
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn checked(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}
