//! What can happen.

use std::rc::Rc;

use lizmon_client::ConnectFailure;
use lizmon_monitor::spool::StoredBatch;
use lizmon_monitor::spool::memory::Faults;

use super::World;
use crate::monitor::encode;
use crate::wire::Answer;

#[derive(Debug)]
pub(super) enum Event {
    /// A monitor looks at its clock.
    Look {
        monitor: usize,
        life: u64,
    },
    /// A courier asks what to do.
    Publisher {
        monitor: usize,
        receiver: usize,
        turn: u64,
    },
    /// A request arrives, whether or not somebody still waits for its answer.
    Arrive {
        id: u64,
        monitor: usize,
        receiver: usize,
        batch: Rc<StoredBatch>,
    },
    /// The journal takes what waits.
    Take {
        receiver: usize,
        life: u64,
    },
    /// An answer, or the news that there is none, reaches a courier.
    Answered {
        id: u64,
        answer: Result<Answer, ConnectFailure>,
    },
    /// The journal's thread does what is due.
    Upkeep {
        receiver: usize,
    },
    /// Somebody sends a sample without a number.
    ByHand {
        receiver: usize,
    },
    /// The process ends, one way or another.
    MonitorDies {
        monitor: usize,
    },
    MonitorStarts {
        monitor: usize,
    },
    ReceiverDies {
        receiver: usize,
    },
    /// It is asked to end.
    ReceiverStops {
        receiver: usize,
    },
    ReceiverStarts {
        receiver: usize,
    },
    /// It answers everything with 503, or no more.
    Busy {
        receiver: usize,
        is_busy: bool,
    },
    /// Its disk is full, or no more.
    Full {
        receiver: usize,
        is_full: bool,
    },
    /// What a monitor's disk refuses.
    Disk {
        monitor: usize,
        faults: Faults,
    },
    /// By how much a monitor's clock is wrong.
    Clock {
        monitor: usize,
        wrong_ms: i64,
    },
    /// By how much a receiver's clock is wrong, and those of all monitors with it if they share it.
    ReceiverClock {
        receiver: usize,
        wrong_ms: i64,
        is_shared: bool,
    },
    /// Everything is made good: from here on all must be delivered.
    Heal,
}

impl Event {
    /// What of it goes into the digest.
    pub(super) fn code(&self) -> u64 {
        let (kind, of) = match self {
            Self::Look { monitor, .. } => (1, *monitor as u64),
            Self::Publisher {
                monitor, receiver, ..
            } => (2, (monitor * 16 + receiver) as u64),
            Self::Arrive { id, .. } => (3, *id),
            Self::Take { receiver, .. } => (4, *receiver as u64),
            Self::Answered { id, .. } => (5, *id),
            Self::Upkeep { receiver } => (6, *receiver as u64),
            Self::ByHand { receiver } => (7, *receiver as u64),
            Self::MonitorDies { monitor } => (8, *monitor as u64),
            Self::MonitorStarts { monitor } => (9, *monitor as u64),
            Self::ReceiverDies { receiver } => (10, *receiver as u64),
            Self::ReceiverStops { receiver } => (11, *receiver as u64),
            Self::ReceiverStarts { receiver } => (12, *receiver as u64),
            Self::Busy { receiver, .. } => (13, *receiver as u64),
            Self::Full { receiver, .. } => (14, *receiver as u64),
            Self::Disk { monitor, .. } => (15, *monitor as u64),
            Self::Clock { monitor, .. } => (16, *monitor as u64),
            Self::Heal => (17, 0),
            Self::ReceiverClock { receiver, .. } => (18, *receiver as u64),
        };
        kind << 56 | of
    }

    /// One line for a reader.
    pub(super) fn in_short(&self, world: &World) -> String {
        match self {
            Self::Arrive { id, batch, .. } => {
                let request = encode(batch);
                let body = String::from_utf8_lossy(&request.body);
                let body: String = body.chars().take(200).collect();
                format!("Arrive {id} {:?} {body}", request.target)
            }
            Self::Answered { id, .. } if !world.under_way.contains_key(id) => {
                format!("Answered {id}, too late")
            }
            Self::Answered {
                id,
                answer: Ok(answer),
            } => format!(
                "Answered {id} {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ),
            _ => format!("{self:?}"),
        }
    }
}
