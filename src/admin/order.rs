//! What commands ask of the process around the sessions, which alone changes the configuration.

use tokio::sync::oneshot;

use crate::config::Change;

#[derive(Debug)]
pub enum Order {
    /// Read the configuration again, as SIGHUP does.
    Reload(Reply),
    /// Set one key until the next reload.
    Set { key: String, value: String, reply: Reply },
}

/// What has changed, or what is wrong with the configuration.
pub type Reply = oneshot::Sender<Result<Vec<Changed>, String>>;

/// A key that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub change: Change,
    /// It has taken effect; otherwise it does so after a restart.
    pub effective: bool,
}
