//! The Unix socket: never taken over from a live service, and gone when this one ends.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A bound socket, removed on drop.
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Binds `path` for its owner only. A socket that nobody answers on is replaced; a live one, or
    /// a file of another kind, is an error.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        clear(path)?;
        let context = || format!("cannot listen on {}", path.display());
        let listener = UnixListener::bind(path).with_context(context)?;
        let socket = Self { path: path.to_owned(), listener };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(context)?;
        socket.listener.set_nonblocking(true).with_context(context)?;
        Ok(socket)
    }

    /// The listener for the runtime; `self` must outlive its use.
    pub(crate) fn listener(&self) -> anyhow::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone().context("cannot share the socket")?;
        tokio::net::UnixListener::from_std(listener).context("cannot watch the socket")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn clear(path: &Path) -> anyhow::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot look at {}", path.display()))?,
    };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is not a socket", path.display());
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another service listens on {}", path.display()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("cannot remove the dead socket {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot probe {}", path.display())),
    }
}
