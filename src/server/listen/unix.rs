//! The Unix socket and its file, which outlives a process that was killed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::ListenError;

/// The file of a listening socket. Removed on drop, if it is ours and still the same file.
#[derive(Debug)]
pub(in crate::server) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have put its own in our place.
    identity: (u64, u64),
    is_ours: bool,
}

impl SocketFile {
    /// That of a socket which was passed to this process. It is not this one's yet.
    pub fn of_passed(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.into(), identity: (metadata.dev(), metadata.ino()), is_ours: false })
    }

    /// Whether it goes with this process.
    pub fn is_ours(&mut self, is_ours: bool) {
        self.is_ours = is_ours;
    }
}

/// Listens at `path`, taking the place of a file that nobody answers on.
pub(in crate::server) fn bind(path: &Path, mode: u32, backlog: i32) -> Result<(UnixListener, SocketFile), ListenError> {
    remove_stale(path)?;
    listen(path, mode, backlog).map_err(ListenError::bind(path.display()))
}

fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // From here on the file is ours to remove.
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.into(), identity: (metadata.dev(), metadata.ino()), is_ours: true };
    // Between bind and listen nobody can connect, so nobody gets in under the permissions of the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Removes what a killed server left behind, and nothing else.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let shown = || path.display().to_string();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ListenError::bind(path.display())(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NotASocket(shown())),
        Ok(_) => {}
    }
    match knock(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = shown(), "removing the socket of a server that is gone");
            fs::remove_file(path).map_err(ListenError::bind(path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or is too busy to, or belongs to somebody who does not let us ask.
        _ => Err(ListenError::InUse(shown())),
    }
}

/// Connects, without waiting for a place in a full backlog.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity);
        if self.is_ours
            && same
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}
