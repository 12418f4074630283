//! The addresses on which the service can listen: a port, or a socket in the file system.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use crate::failure::Failure;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Port(SocketAddr),
    /// A Unix socket.
    Socket(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path is missing; write unix:/run/passkit.sock".into()),
            Some(path) => Ok(Self::Socket(path.into())),
            None => text
                .parse()
                .map(Self::Port)
                .map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:8080, or unix:PATH".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A port or a socket on which the service listens.
pub(crate) enum Listener {
    Port(TcpListener),
    #[cfg(unix)]
    Socket(socket::Socket),
}

impl Listener {
    /// Listens on an address. Returns the address with its actual port, which is never 0. `option` is the name of the
    /// option, for errors. `mode` has the permissions of a socket.
    pub(crate) async fn bind(
        address: &Address,
        option: &str,
        mode: u32,
    ) -> Result<(Self, Address), Failure> {
        let cannot_listen = |error: io::Error| {
            Failure::new(format!(
                "can't listen on {address}: {error}; choose another {option}"
            ))
        };
        match address {
            Address::Port(port) => {
                let listener = TcpListener::bind(port).await.map_err(cannot_listen)?;
                let address = listener.local_addr().map_err(cannot_listen)?;
                Ok((Self::Port(listener), Address::Port(address)))
            }
            #[cfg(unix)]
            Address::Socket(path) => {
                let socket = socket::Socket::bind(path, mode).map_err(cannot_listen)?;
                Ok((Self::Socket(socket), address.clone()))
            }
            #[cfg(not(unix))]
            Address::Socket(_) => {
                let _ = mode;
                Err(cannot_listen(io::ErrorKind::Unsupported.into()))
            }
        }
    }

    /// Returns the next connection, and the address of the client if the client has one.
    pub(crate) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        match self {
            Self::Port(listener) => {
                let (stream, client) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("can't set TCP_NODELAY: {error}");
                }
                Ok((Box::new(stream), Some(client.ip())))
            }
            #[cfg(unix)]
            Self::Socket(socket) => Ok((Box::new(socket.accept().await?), None)),
        }
    }
}

#[cfg(unix)]
mod socket {
    use std::{
        fs, io,
        os::unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixStream as BlockingStream,
        },
        path::{Path, PathBuf},
    };

    use tokio::net::{UnixListener, UnixStream};

    /// A socket in the file system. The file is removed when this value is dropped.
    pub(crate) struct Socket {
        listener: UnixListener,
        path: PathBuf,
        /// The device and inode. Another process may have replaced the file.
        identity: Option<(u64, u64)>,
    }

    impl Socket {
        pub(super) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
            remove_stale(path)?;
            // The umask lets only the owner connect until the rights are set.
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            Ok(Self {
                listener,
                identity: identity(path),
                path: path.to_owned(),
            })
        }

        pub(super) async fn accept(&self) -> io::Result<UnixStream> {
            self.listener.accept().await.map(|(stream, _)| stream)
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            if self.identity.is_some() && identity(&self.path) == self.identity {
                // The next start replaces a socket that could not be removed.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    fn identity(path: &Path) -> Option<(u64, u64)> {
        let found = fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Removes a socket on which no process listens. Fails if there is any other file.
    fn remove_stale(path: &Path) -> io::Result<()> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !found.file_type().is_socket() {
            return Err(io::Error::other("there is a file that is not a socket"));
        }
        match BlockingStream::connect(path) {
            Ok(_) => Err(io::Error::other("another process listens there")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/a.sock", "unix:./a"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for wrong in ["", "unix:", "localhost:80", "127.0.0.1", "/run/a.sock"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
