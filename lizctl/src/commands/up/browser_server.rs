//! The page of the receiver of `lizctl up` in a browser: what `lizctl open` does, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use lizmon_client::{BaseUrl, Credentials};
use tokio::task::JoinHandle;

use crate::commands::open;
use crate::connection::ReceiverConnection;
use crate::context::Context;
use crate::loopback::{self, Session, Upstream};

/// The running server.
pub(super) struct BrowserServer {
    /// Makes addresses of the page.
    pub(super) session: Arc<Session>,
    /// How the receiver is asked.
    pub(super) upstream: Arc<Upstream>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl BrowserServer {
    /// Starts it on a free port.
    pub(super) fn start(
        receiver: &BaseUrl,
        reader: &Credentials,
        context: &Context,
    ) -> anyhow::Result<Self> {
        let connection = ReceiverConnection {
            receiver: receiver.clone(),
            credentials: reader.clone(),
            ca_url: None,
        };
        let upstream = Arc::new(Upstream::new(connection, context.clock)?);
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listener, address) =
            loopback::bind(any_port).context("cannot listen for browsers on 127.0.0.1")?;
        let session = Arc::new(Session::new(address, context.new_secret));
        let (access, page) = (Some(session.clone()), "/".to_owned());
        let machines = open::machines(receiver, context);
        let stop = std::future::pending();
        let served = open::serve(listener, upstream.clone(), access, page, machines, stop);
        let task = tokio::spawn(served);
        Ok(Self {
            session,
            upstream,
            task,
        })
    }

    /// Ends it, and every stream.
    pub(super) fn stop(&self) {
        self.task.abort();
    }
}
