//! Arguments, configuration, run, exit code.

mod cli;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::BytesMut;
use clap::Parser;
use heliosproxy::config::Config;
use heliosproxy::server::{self, Peer, Sessions};
use heliosproxy::telemetry::log;
use heliosproxy::wire::error::{ErrorResponse, sqlstate};
use heliosproxy::wire::stream::Stream;
use tokio::io::AsyncWriteExt;

use cli::Cli;

/// The command line or the configuration is wrong.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    // Two providers in one process would otherwise make rustls refuse to choose. An error means that one is set, and that
    // can only be this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let loaded = cli.sources().map_err(|error| error.to_string()).and_then(|sources| {
        let config = sources.load().map_err(|error| error.to_string())?;
        Ok((config, sources))
    });
    let (config, sources) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    if cli.check {
        println!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    let log = match log::init(&config.log) {
        Ok(log) => log,
        Err(error) => return fail(EXIT_CONFIG, &error.to_string()),
    };
    match server::run(config, sources, log, |_| Ok(Arc::new(Refuse))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error.to_string()),
    }
}

/// Says each line of what is wrong on standard error.
fn fail(code: u8, message: &str) -> ExitCode {
    for line in message.lines() {
        eprintln!("heliosproxy: {line}");
    }
    ExitCode::from(code)
}

/// Tells every client that it came too early. Stands here until the session floor takes its place.
struct Refuse;

impl Sessions for Refuse {
    fn session(self: Arc<Self>, mut stream: Stream, _: Peer) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut answer = BytesMut::new();
            let message = "this build of the proxy does not run sessions yet";
            ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, message).encode(&mut answer);
            // The client may be gone already, which is as well.
            let _ = stream.write_all(&answer).await;
        })
    }

    fn begin_shutdown(&self) {}

    fn end_now(&self) {}

    fn reload(&self, _: Arc<Config>) {}
}
