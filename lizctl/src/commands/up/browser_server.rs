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

/// Starts the server on a free port. It ends with its task.
pub(super) fn start(
    receiver: &BaseUrl,
    reader: &Credentials,
    context: &Context,
) -> anyhow::Result<(Arc<Session>, JoinHandle<anyhow::Result<()>>)> {
    let connection = ReceiverConnection {
        receiver: receiver.clone(),
        credentials: reader.clone(),
    };
    let upstream = Arc::new(Upstream::new(connection, context.clock)?);
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, address) =
        loopback::bind(any_port).context("cannot listen for browsers on 127.0.0.1")?;
    let session = Arc::new(Session::new(address, context.new_secret));
    let stop = std::future::pending();
    let served = open::serve(
        listener,
        upstream,
        Some(session.clone()),
        "/".to_owned(),
        stop,
    );
    Ok((session, tokio::spawn(served)))
}
