//! A link to a receiver that is killed and started again behind it. Answers can be lost on it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Leads from a port of its own to that of the receiver.
pub(crate) struct Link {
    pub(crate) port: u16,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct State {
    receiver: AtomicU16,
    /// How often the connections of the moment were cut.
    cuts: AtomicU64,
    /// Of how many connections an answer was lost.
    losses: AtomicU64,
}

impl Link {
    pub(crate) async fn to(receiver: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let of_connections = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, of_connections.clone()));
            }
        });
        let link = Self {
            port,
            state,
            accepting: accepting.abort_handle(),
        };
        link.leads_to(receiver);
        link
    }

    /// From now on new connections reach this receiver.
    pub(crate) fn leads_to(&self, receiver: u16) {
        self.state.receiver.store(receiver, Ordering::SeqCst);
    }

    /// Requests arrive as before; the connections that there are bring no answer any more.
    pub(crate) fn cut_answers(&self) {
        self.state.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// Of how many connections an answer was lost so far.
    pub(crate) fn losses(&self) -> u64 {
        self.state.losses.load(Ordering::SeqCst)
    }

    /// The receiver's own port.
    pub(crate) fn receiver(&self) -> u16 {
        self.state.receiver.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until either end closes the connection.
async fn forward(client: TcpStream, state: Arc<State>) -> io::Result<()> {
    let receiver = state.receiver.load(Ordering::SeqCst);
    let cuts = state.cuts.load(Ordering::SeqCst);
    let server = TcpStream::connect(("127.0.0.1", receiver)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut bytes = vec![0; 16 << 10];
        let mut is_cut = false;
        loop {
            let read = from_server.read(&mut bytes).await?;
            if read == 0 {
                return Ok(());
            }
            if state.cuts.load(Ordering::SeqCst) == cuts {
                to_client.write_all(&bytes[..read]).await?;
            } else if !std::mem::replace(&mut is_cut, true) {
                state.losses.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    tokio::select! {
        ended = copy(&mut from_client, &mut to_server) => ended.map(drop),
        ended = answers => ended,
    }
}
