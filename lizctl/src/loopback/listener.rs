//! Where the server listens, and its connections.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::handler::Loopback;

/// Connections at a time: far more than a person's browsers need.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to send the head of a request, or be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long answers that are on their way may take at the end. Streams have none.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait after no connection could be accepted: it would fail again at once.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A bound listener.
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// Binds a loopback address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    Ok((Listener::Tcp(listener), bound))
}

/// Why there is no socket at a path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("{} is in use: another program answers there", .0.display())]
    InUse(PathBuf),
    #[error("{} is there and is no socket: nothing is replaced", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot listen at {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A socket that only its owner can connect to; it is removed with this value.
#[cfg(unix)]
pub(crate) struct UnixSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    /// Device and number of the file, so that no other is removed.
    file: (u64, u64),
}

#[cfg(unix)]
impl Drop for UnixSocket {
    fn drop(&mut self) {
        if file_of(&self.path).is_some_and(|file| file == self.file) {
            // It is gone already, or its folder cannot be written any more.
            let _stays = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn file_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Binds a Unix socket of mode 0600. One that nobody listens at any more is replaced; anything else
/// that is there, a link too, is not.
#[cfg(unix)]
pub(crate) fn bind_socket(path: &Path) -> Result<Listener, SocketError> {
    use rustix::fs::Mode;
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            _ => return Err(SocketError::InUse(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(failed(error)),
    }
    // The mode is right from the first moment on: who is connected then stays so.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => SocketError::InUse(path.to_owned()),
        _ => failed(error),
    })?;
    let file = file_of(path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    Ok(Listener::Unix(UnixSocket {
        listener,
        path: path.to_owned(),
        file,
    }))
}

#[cfg(not(unix))]
pub(crate) fn bind_socket(path: &Path) -> Result<Listener, SocketError> {
    let (path, source) = (path.to_owned(), io::ErrorKind::Unsupported.into());
    Err(SocketError::Io { path, source })
}

/// Serves until `stop`. Then answers that are on their way are finished, and streams are cut.
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant"
)]
pub(crate) async fn serve(
    listener: Listener,
    loopback: Arc<Loopback>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let (finish, finishing) = tokio::sync::watch::channel(false);
    let mut stop = pin!(stop);
    let accepting = Acceptor::new(&listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        tokio::select! {
            () = &mut stop => break,
            (stream, slot) = accepting.accept(&slots) => {
                let (loopback, finishing) = (loopback.clone(), finishing.clone());
                connections.spawn(async move {
                    serve_connection(stream, loopback, finishing).await;
                    drop(slot);
                });
            }
            Some(_ended) = connections.join_next() => (),
        }
    }
    drop(accepting);
    finish.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    // The rest is cut when the set is dropped.
    let _streams_are_left = tokio::time::timeout(DRAIN_TIMEOUT, ended).await;
    Ok(())
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

enum Acceptor {
    Tcp(tokio::net::TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

impl Acceptor {
    fn new(listener: &Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = listener.try_clone()?;
                Ok(Self::Tcp(tokio::net::TcpListener::from_std(listener)?))
            }
            #[cfg(unix)]
            Listener::Unix(socket) => {
                socket.listener.set_nonblocking(true)?;
                let listener = socket.listener.try_clone()?;
                Ok(Self::Unix(tokio::net::UnixListener::from_std(listener)?))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "paces attempts")]
    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> (Box<dyn Stream>, Option<tokio::sync::OwnedSemaphorePermit>) {
        // The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.ok();
        loop {
            let accepted: io::Result<Box<dyn Stream>> = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Events are small, and wait for nothing.
                    let _is_slower = stream.set_nodelay(true);
                    Box::new(stream) as Box<dyn Stream>
                }),
                #[cfg(unix)]
                Self::Unix(listener) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            };
            match accepted {
                Ok(stream) => return (stream, slot),
                Err(error) => tracing::warn!("cannot accept a connection: {error}"),
            }
            tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
        }
    }
}

async fn serve_connection(
    stream: Box<dyn Stream>,
    loopback: Arc<Loopback>,
    mut finishing: tokio::sync::watch::Receiver<bool>,
) {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    let service = tower::service_fn(move |request| loopback.clone().answer(request));
    let service = TowerToHyperService::new(service);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = served.as_mut() => return log_end(&ended),
        _stop = finishing.wait_for(|finish| *finish) => served.as_mut().graceful_shutdown(),
    }
    log_end(&served.await);
}

fn log_end<E: std::fmt::Display>(ended: &Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}
