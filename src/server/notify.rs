//! What the service manager is told (systemd's `sd_notify`), if one has started the proxy.

use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Where messages go, if anybody waits for them.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the proxy is alive.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one of `NOTIFY_SOCKET`.
    pub fn from_environment() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let name = name.as_encoded_bytes();
        let address = match name.strip_prefix(b"@") {
            #[cfg(target_os = "linux")]
            Some(name) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(String::from_utf8_lossy(name).as_ref())?,
        };
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| for_us && *micros > 0).map(Duration::from_micros);
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some((socket, address)), watchdog })
    }

    /// Clients are accepted, and this is the process that does it.
    pub fn is_ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS=accepting clients", std::process::id()));
    }

    /// The configuration is read again; [`is_ready`](Self::is_ready) when that is done.
    pub fn is_reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn is_stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=shutting down");
    }

    pub fn is_alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Between two messages that the proxy is alive, if they are wanted.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, message, "the service manager does not hear");
        }
    }
}
