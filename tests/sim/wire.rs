//! What is sent over the simulated network.

use lizmon_client::ServerClock;
use lizmon_protocol::sample::Epoch;

/// A POST.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) body: Vec<u8>,
}

/// The route.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// `POST /api/perf/{host}/{epoch}` with this idempotency key.
    Single { epoch: Epoch, key: String },
    /// The same without a key: each one counts.
    Unnumbered { epoch: Epoch },
    /// `POST /api/perf/{host}`
    Batch,
}

/// A receiver's answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    /// The receiver's clock.
    pub(crate) clock: ServerClock,
    pub(crate) body: Vec<u8>,
}
