//! What goes over the network, without the network.

use lizmon_client::ServerClock;
use lizmon_protocol::sample::Epoch;

/// A POST.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) body: Vec<u8>,
}

/// Which route, and how.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// `POST /api/perf/{host}/{epoch}` with this idempotency key.
    Single { epoch: Epoch, key: String },
    /// The same without a key: every one counts.
    Unnumbered { epoch: Epoch },
    /// `POST /api/perf/{host}`
    Batch,
}

/// What a receiver answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    /// What the receiver says of its clock.
    pub(crate) clock: ServerClock,
    pub(crate) body: Vec<u8>,
}
