//! Log output on standard error, as text or JSON. The level can be changed while the proxy runs, the format cannot.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

#[derive(Debug, Error)]
pub enum LogError {
    #[error("log.level: {0}")]
    Level(#[from] ParseError),
    #[error("the log output is set up already: {0}")]
    Twice(#[from] TryInitError),
    #[error("the log level cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Changes the level of the output that it came from.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        Ok(self.filter.reload(EnvFilter::try_new(level)?)?)
    }
}

/// Sets up the output of this process, once.
pub fn init(config: &Log) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = subscriber(config, io::stderr, io::stderr().is_terminal())?;
    subscriber.try_init()?;
    Ok(handle)
}

/// The same for any writer, for nobody in particular yet.
pub fn subscriber<W>(
    config: &Log,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.level)?);
    let output = fmt::layer().with_writer(writer).with_ansi(colours);
    let output = match config.format {
        LogFormat::Text => output.boxed(),
        LogFormat::Json => output.json().flatten_event(true).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(output), LogHandle { filter: handle }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn set_up(level: &str, format: LogFormat) -> (Sink, LogHandle, tracing::subscriber::DefaultGuard) {
        let sink = Sink::default();
        let writer = sink.clone();
        let config = Log { level: level.into(), format, ..Log::default() };
        let (subscriber, handle) = subscriber(&config, move || writer.clone(), false).unwrap();
        (sink, handle, tracing::subscriber::set_default(subscriber))
    }

    #[test]
    fn text_is_a_line_and_the_level_can_be_changed() {
        let (sink, handle, _guard) = set_up("info", LogFormat::Text);
        tracing::debug!("hidden");
        tracing::info!(clients = 3, "shown");
        let text = sink.take();
        assert!(text.contains("INFO") && text.contains("shown") && text.contains("clients=3"), "{text}");
        assert!(!text.contains("hidden") && text.lines().count() == 1, "{text}");

        handle.set_level("debug").unwrap();
        tracing::debug!("now shown");
        assert!(sink.take().contains("now shown"));
        assert!(handle.set_level("heliosproxy=loud").is_err());
        tracing::debug!("still shown");
        assert!(sink.take().contains("still shown"));
    }

    #[test]
    fn json_is_an_object_a_line() {
        let (sink, _handle, _guard) = set_up("info", LogFormat::Json);
        tracing::warn!(clients = 3, "shown");
        let object: serde_json::Value = serde_json::from_str(&sink.take()).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["message"], "shown");
        assert_eq!(object["clients"], 3);
    }

    #[test]
    fn a_level_that_is_none_is_an_error() {
        let config = Log { level: "heliosproxy=loud".into(), ..Log::default() };
        assert!(matches!(subscriber(&config, io::sink, false), Err(LogError::Level(_))));
    }
}
