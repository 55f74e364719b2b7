//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use heliosproxy::config::{Overrides, Sources, UrlError};

use crate::probe;

const AFTER_HELP: &str = "\
Examples:
  Try it in front of a local server, then connect with psql -p 6432:
      heliosproxy --upstream postgres://postgres:secret@127.0.0.1:5432/postgres
  The same with metrics and health on http://127.0.0.1:6433/metrics, /health/live and /health/ready:
      heliosproxy --upstream postgres://db.internal/app --listen 0.0.0.0:6432 --http 127.0.0.1:6433
  Through the server's Unix socket:
      heliosproxy --upstream 'postgres://postgres@/postgres?host=/var/run/postgresql'
  From a file, after a look whether it is right:
      heliosproxy --config config.toml --check && heliosproxy --config config.toml

Environment:
  Every key of the file can be set as HELIOSPROXY_<SECTION>_<KEY>, lists with commas between:
      HELIOSPROXY_UPSTREAM_PASSWORD=secret HELIOSPROXY_CACHE_MAX_ENTRIES=50000 heliosproxy --config config.toml
  A flag wins over the environment, the environment over the file, the file over the defaults.
  Other users of the machine can see a password on the command line, but not one in the environment.

Signals:
  SIGTERM, SIGINT  accept nobody any more, let running transactions end, then exit; a second one exits at once
  SIGUSR2          start the program anew, as it is on the disk now, to take over (server.takeover_dir)
  SIGHUP           read configuration and certificates again; if they are not valid the old ones stay

Exit codes:
  0 ended by a signal, or the configuration is valid, or the proxy is ready; 1 cannot run, or is not ready;
  2 arguments or configuration are wrong";

/// A PostgreSQL proxy that answers repeated reads from memory, until a write through it changes what they read.
///
/// Clients connect to it as they would to the server behind it. Without --config the built-in defaults hold; config.toml in
/// the source tree lists and explains them.
#[derive(Debug, Parser)]
#[command(name = "heliosproxy", version, after_long_help = AFTER_HELP, after_help = "More, with examples: --help")]
pub struct Cli {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Server behind the proxy: postgres://user:password@host:port/database?sslmode=...
    ///
    /// User and password are the proxy's own account; clients bring theirs. Parts that are left out are taken from the
    /// environment, the file or the defaults. Characters such as @ and / in a part are written as %40 and %2F.
    // Parsed later: clap would repeat a wrong value, password and all.
    #[arg(short, long, value_name = "URL")]
    upstream: Option<String>,

    /// Address to accept clients on, host:port; may be given several times [default: 127.0.0.1:6432]
    #[arg(short, long, value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<String>,

    /// Address for metrics and health over HTTP, host:port [default: none]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,

    /// Directory for a Unix socket to accept clients on [default: none]
    #[arg(long, value_name = "DIRECTORY")]
    unix_socket_dir: Option<String>,

    /// How clients prove who they are: relay, trust, scram or md5 [default: relay]
    #[arg(long, value_name = "METHOD")]
    auth: Option<String>,

    /// Relay everything, cache nothing
    #[arg(long)]
    no_cache: bool,

    /// What to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// How to log: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// Ask the proxy whose --http is at this address whether it is ready, say what it answers, and exit with 0 if it is
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["check", "completions", "man"])]
    pub health: Option<String>,

    /// Write the completions for a shell on standard output, and exit
    #[arg(long, value_name = "SHELL", conflicts_with = "man")]
    pub completions: Option<clap_complete::Shell>,

    /// Write the manual page on standard output, and exit
    #[arg(long)]
    pub man: bool,

    /// Say whether the configuration is valid, or what is wrong in which line, and exit
    #[arg(long)]
    pub check: bool,
}

impl Cli {
    /// Does what ends the program at once, if anything of the kind is asked.
    pub fn short_errand(&self) -> Option<io::Result<bool>> {
        let mut out = io::stdout().lock();
        if let Some(address) = &self.health {
            return Some(probe::ask(address).and_then(|(ready, report)| {
                writeln!(out, "{report}")?;
                Ok(ready)
            }));
        }
        if let Some(shell) = self.completions {
            clap_complete::generate(shell, &mut Self::command(), "heliosproxy", &mut out);
            return Some(out.flush().map(|()| true));
        }
        self.man.then(|| clap_mangen::Man::new(Self::command()).render(&mut out).map(|()| true))
    }

    /// The sources of the configuration that these arguments name.
    pub fn sources(&self) -> Result<Sources, UrlError> {
        let mut overrides = Overrides::default();
        if let Some(url) = &self.upstream {
            overrides.upstream_url(url)?;
        }
        if !self.listen.is_empty() {
            overrides.set("--listen", "server.listen", self.listen.join(","));
        }
        let texts = [
            ("--http", "server.http", &self.http),
            ("--unix-socket-dir", "server.unix_socket_dir", &self.unix_socket_dir),
            ("--auth", "auth.mode", &self.auth),
            ("--log-level", "log.level", &self.log_level),
            ("--log-format", "log.format", &self.log_format),
        ];
        for (flag, key, text) in texts {
            if let Some(text) = text {
                overrides.set(flag, key, text);
            }
        }
        if self.no_cache {
            overrides.set("--no-cache", "cache.enabled", "false");
        }
        Ok(Sources { path: self.config.clone(), overrides })
    }
}

#[cfg(test)]
mod tests {
    use heliosproxy::config::{AuthMode, Config, LogFormat, load};

    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let all = std::iter::once("heliosproxy").chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        let sources = cli.sources().map_err(|error| error.to_string())?;
        load(sources.path.as_deref(), std::iter::empty(), &sources.overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[cache]\nmax_entries = 7\n[log]\nlevel = \"error\"").unwrap();
        let arguments = [
            "--config",
            file.to_str().unwrap(),
            "--upstream",
            "postgres://u:p@h:1/d",
            "--listen",
            "127.0.0.1:1,[::1]:2",
            "--listen",
            "localhost:3",
            "--http",
            "127.0.0.1:4",
            "--unix-socket-dir",
            dir.path().to_str().unwrap(),
            "--auth",
            "scram",
            "--no-cache",
            "--log-level",
            "debug",
            "--log-format",
            "json",
        ];
        let config = config(&arguments).unwrap();
        assert_eq!((config.upstream.host.as_str(), config.upstream.password.as_str()), ("h", "p"));
        assert_eq!(config.server.listen, ["127.0.0.1:1", "[::1]:2", "localhost:3"]);
        assert_eq!(config.server.http, "127.0.0.1:4");
        assert_eq!(config.server.unix_socket_dir, dir.path().to_str().unwrap());
        assert_eq!(config.auth.mode, AuthMode::Scram);
        assert!(!config.cache.enabled);
        assert_eq!((config.log.level.as_str(), config.log.format), ("debug", LogFormat::Json));
        assert_eq!(config.cache.max_entries, 7);
    }

    #[test]
    fn without_arguments_the_defaults_hold() {
        assert_eq!(config(&[]).unwrap(), Config::default());
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        let error = config(&["--auth", "magic"]).unwrap_err();
        assert!(error.starts_with("--auth: auth.mode: unknown variant \"magic\""), "{error}");
        assert!(config(&["--log-level", "loud"]).unwrap_err().starts_with("--log-level: log.level: expected"));
        let error = config(&["--upstream", "postgres://u:hunter2"]).unwrap_err();
        assert!(error.starts_with("--upstream: the port must be") && !error.contains("hunter2"), "{error}");
    }
}
