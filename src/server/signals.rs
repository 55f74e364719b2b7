//! What the operating system and the admin database ask of the proxy.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::Order;
use crate::takeover::Asked;

#[derive(Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT. The second one means at once.
    Terminate,
    /// SIGHUP.
    Reload,
    /// SIGUSR2: start a process that takes over.
    Upgrade,
    /// Not the operating system, but somebody at the admin database.
    Order(Order),
    /// Not the operating system, but another process of the proxy.
    Asked(Asked),
}

/// From here on signals arrive here instead of killing the process. Must be called within a runtime.
pub(super) fn receive() -> io::Result<(mpsc::Sender<Signal>, mpsc::Receiver<Signal>)> {
    let kinds: [(SignalKind, fn() -> Signal); 4] = [
        (SignalKind::terminate(), || Signal::Terminate),
        (SignalKind::interrupt(), || Signal::Terminate),
        (SignalKind::hangup(), || Signal::Reload),
        (SignalKind::user_defined2(), || Signal::Upgrade),
    ];
    let (sender, receiver) = mpsc::channel(kinds.len());
    for (kind, meaning) in kinds {
        let mut signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move { while signals.recv().await.is_some() && sender.send(meaning()).await.is_ok() {} });
    }
    Ok((sender, receiver))
}
