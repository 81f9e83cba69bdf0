//! How a connection ends without the loss of a request: HTTP/1 with `Connection: close` (RFC 9112
//! section 9.6), HTTP/2 with GOAWAY (RFC 9113 section 6.8).

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::activity::ConnectionActivity;

/// How long an HTTP/1 connection waits for its last request when the server stops. An idle one can
/// only be told with the response to a request: if it just closed, a request on its way would be
/// lost. Monitors send once a second.
pub(crate) const LAST_REQUEST_GRACE: Duration = Duration::from_millis(1_500);

/// Why a connection is to end.
enum Reason {
    /// No request has come.
    Unused,
    /// It is old.
    Aged,
    /// The server stops.
    Stopping,
}

/// Runs a connection to its end. `stopping` changes when the server stops.
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant"
)]
pub(crate) async fn run(
    mut connection: Pin<&mut impl GracefulConnection>,
    activity: &ConnectionActivity,
    first_request_timeout: Duration,
    mut stopping: watch::Receiver<()>,
) {
    // The connection always goes first: a request that has arrived is read before the connection is
    // told to end.
    let reason = {
        // Polled only if it is woken itself: the connection is woken several times a request.
        let end = end_of(activity, first_request_timeout, &mut stopping);
        let mut end = FuturesUnordered::from_iter([end]);
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            Some(reason) = end.next() => reason,
        }
    };
    match reason {
        Reason::Unused => return,
        Reason::Aged => {
            // An HTTP/1 connection ends after its next response, or once it is idle for too long.
            if activity.is_http2() {
                connection.as_mut().graceful_shutdown();
            }
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                _ = stopping.changed() => (),
            }
        }
        Reason::Stopping => (),
    }
    activity.stop();
    if !activity.is_http2() {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = sleep(LAST_REQUEST_GRACE) => (),
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ended_well_or_not = connection.await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant or a flag"
)]
async fn end_of(
    activity: &ConnectionActivity,
    first_request_timeout: Duration,
    stopping: &mut watch::Receiver<()>,
) -> Reason {
    let age = async {
        let young = first_request_timeout.min(activity.time_left());
        sleep(young).await;
        if !activity.has_begun() {
            sleep(first_request_timeout.saturating_sub(young)).await;
        }
        if !activity.has_begun() {
            return Reason::Unused;
        }
        sleep(activity.time_left()).await;
        Reason::Aged
    };
    tokio::select! {
        reason = age => reason,
        _ = stopping.changed() => Reason::Stopping,
    }
}
