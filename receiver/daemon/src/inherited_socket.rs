//! A listening socket that the service manager holds and hands to the program (socket activation,
//! `sd_listen_fds(3)`). Clients that connect while the program restarts wait in it.

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Why the sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedSocketError {
    /// One socket serves all addresses: `[::]:8443` takes IPv4 as well.
    #[error(
        "{0} sockets were handed over by LISTEN_FDS: give one ListenStream= in the .socket unit"
    )]
    Count(usize),
    /// Not a TCP socket.
    #[error(
        "what was handed over by LISTEN_FDS is not a TCP socket: give ListenStream=ADDRESS:PORT in the .socket unit"
    )]
    NotTcp(#[source] io::Error),
    /// A TCP socket of one connection, for example.
    #[error(
        "the socket that was handed over by LISTEN_FDS does not listen: remove Accept=yes from the .socket unit"
    )]
    NotListening,
}

/// The listening socket that the service manager handed to this process, if it did. To be called
/// before threads start, because it removes the variables that say so: children must not take the
/// socket as theirs.
#[cfg(unix)]
pub fn inherited_listener() -> Result<Option<TcpListener>, InheritedSocketError> {
    let mut handed = listenfd::ListenFd::from_env();
    match handed.len() {
        0 => return Ok(None),
        1 => (),
        more => return Err(InheritedSocketError::Count(more)),
    }
    let listener = handed
        .take_tcp_listener(0)
        .map_err(InheritedSocketError::NotTcp)?;
    let listens =
        |listener: &TcpListener| rustix::net::sockopt::socket_acceptconn(listener).unwrap_or(false);
    match listener {
        Some(listener) if !listens(&listener) => Err(InheritedSocketError::NotListening),
        listener => Ok(listener),
    }
}

/// Other systems hand over no sockets.
#[cfg(not(unix))]
pub fn inherited_listener() -> Result<Option<TcpListener>, InheritedSocketError> {
    Ok(None)
}

/// The inherited socket, or else one that listens on `address`.
pub fn listener(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if let Some(inherited) = inherited_listener()? {
        if let Ok(actual) = inherited.local_addr() {
            tracing::info!("listening on {actual}, the service manager's socket");
        }
        return Ok(inherited);
    }
    bind(address).map_err(|source| ListenError::Bind { address, source })
}

/// How many connections may wait until they are accepted: a whole fleet may come at once after a
/// restart. The system allows fewer (Linux: net.core.somaxconn, 4,096). The kernel drops what comes
/// beyond, and its sender tries again after 1 s, 2 s, 4 s and so on.
#[cfg(unix)]
const WAITING_CONNECTIONS_MAX: i32 = 16_384;

/// A socket that listens on `address`.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library allows 128.
    #[cfg(unix)]
    rustix::net::listen(&listener, WAITING_CONNECTIONS_MAX)?;
    Ok(listener)
}

/// Why a program cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket that was handed over.
    #[error(transparent)]
    Inherited(#[from] InheritedSocketError),
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address}: choose another with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    /// Longer than a connection takes that the kernel does not drop.
    const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

    /// After a restart 10,000 monitors came at once, and 128 of them could wait: the last came half
    /// a minute later, as the kernel had dropped their attempts.
    #[test]
    fn many_connections_wait_to_be_accepted() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, CONNECTED_WITHIN).unwrap();
        let waiting: Vec<_> = (0..400).map(connect).collect();
        assert_eq!(waiting.len(), 400);
    }
}
