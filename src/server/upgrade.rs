//! SIGUSR2: the program as it is on the disk now takes the place of this process.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};

/// How this process was started.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked at the start: later there may be another file in the place of this one.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    /// Starts it once more. What comes of it is for the log: if it cannot take over it ends, and this process goes on.
    pub fn start(&self) -> io::Result<()> {
        let mut command = Command::new(&self.path);
        // Those are about this process.
        command.args(&self.arguments).env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("WATCHDOG_PID");
        let child = command.spawn()?;
        tracing::info!(pid = child.id(), program = %self.path.display(), "started a process to take over");
        // It is waited for so that nothing is left of it when it ends first.
        tokio::task::spawn_blocking(move || report(child));
        Ok(())
    }
}

fn report(mut child: Child) {
    let pid = child.id();
    match child.wait() {
        Ok(status) => tracing::warn!(pid, %status, "the process that was started to take over has ended"),
        Err(error) => tracing::warn!(pid, %error, "the process that was started to take over is lost"),
    }
}
