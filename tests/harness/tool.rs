//! PostgreSQL's own programs as clients.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::DEADLINE;
use super::cluster::binaries;

/// What a program said and whether it succeeded.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Standard output, or a failed test with standard error.
    pub fn ok(self) -> String {
        assert!(self.success, "failed:\n{}\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a PostgreSQL program without blocking the tasks of this test, for at most [`DEADLINE`].
pub async fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Said {
    let mut command = Command::new("timeout");
    command.arg(DEADLINE.as_secs().to_string()).arg(client_program(program)).args(args);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C.UTF-8");
    command.env("HOME", "/nonexistent").env("PGCONNECT_TIMEOUT", "10").envs(env.iter().copied());
    let described = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
    let Output { status, stdout, stderr } =
        output.expect("no panic").unwrap_or_else(|error| panic!("{described}: {error}"));
    assert_ne!(status.code(), Some(124), "no end within {DEADLINE:?}: {described}");
    Said {
        success: status.success(),
        stdout: String::from_utf8_lossy(&stdout).into(),
        stderr: String::from_utf8_lossy(&stderr).into(),
    }
}

/// `psql` on a connection string, with the given commands one after the other, unaligned and without headers.
pub async fn psql(connection: &str, commands: &[&str], env: &[(&str, &str)]) -> Said {
    let mut args = vec!["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", connection];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    run("psql", &args, env).await
}

fn client_program(program: &str) -> std::path::PathBuf {
    let beside_the_server = binaries().join(program);
    if beside_the_server.exists() { beside_the_server } else { Path::new(program).to_path_buf() }
}
