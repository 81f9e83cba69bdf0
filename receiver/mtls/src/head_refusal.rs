//! Why a request is refused by its head.

use crate::forwarding::ForwardingError;
use crate::host::HostError;

/// Why a request is refused by its head, from any client.
#[derive(Debug, Clone)]
pub enum HeadRefusal {
    /// The client has reached its limit of requests in progress. The body of the response is not
    /// sent: a client that reads no responses would keep it in memory.
    TooManyInFlight,
    /// Without one unambiguous Host the requests behind this one cannot be trusted: the connection
    /// is closed.
    Host(HostError),
    /// The request came with headers of a proxy, or through a proxy, and is not accepted so.
    Forwarding(ForwardingError),
}
