//! What the operating system and the admin database ask of the proxy.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::Order;

#[derive(Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT. The second one means at once.
    Terminate,
    /// SIGHUP.
    Reload,
    /// Not the operating system, but somebody at the admin database.
    Order(Order),
}

/// From here on signals arrive here instead of killing the process. Must be called within a runtime.
pub(super) fn receive() -> io::Result<(mpsc::Sender<Signal>, mpsc::Receiver<Signal>)> {
    let kinds: [(SignalKind, fn() -> Signal); 3] = [
        (SignalKind::terminate(), || Signal::Terminate),
        (SignalKind::interrupt(), || Signal::Terminate),
        (SignalKind::hangup(), || Signal::Reload),
    ];
    let (sender, receiver) = mpsc::channel(kinds.len());
    for (kind, meaning) in kinds {
        let mut signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move { while signals.recv().await.is_some() && sender.send(meaning()).await.is_ok() {} });
    }
    Ok((sender, receiver))
}
