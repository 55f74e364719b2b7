//! Arguments, configuration, run, exit code.

mod cli;
mod probe;

use std::process::ExitCode;

use clap::Parser;
use heliosproxy::server::{self, Proxy};
use heliosproxy::telemetry::log;

use cli::Cli;

/// The command line or the configuration is wrong.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    // Two providers in one process would otherwise make rustls refuse to choose. An error means that one is set, and that
    // can only be this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    match cli.short_errand() {
        None => {}
        Some(Ok(true)) => return ExitCode::SUCCESS,
        Some(Ok(false)) => return ExitCode::FAILURE,
        Some(Err(error)) => return fail(1, &error.to_string()),
    }
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
    match server::run(config, sources, log, Proxy::new) {
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
