//! The events of a run.

use lizmon_client::ConnectFailure;
use lizmon_monitor::spool::memory::Faults;

use super::{Payload, World};
use crate::monitor::encode;
use crate::wire::Answer;

#[derive(Debug)]
pub(super) enum Event {
    /// A monitor reads its clock.
    Tick {
        monitor: usize,
        generation: u64,
    },
    /// A publisher asks its scheduler what to do.
    PublisherTurn {
        monitor: usize,
        receiver: usize,
        turn: u64,
    },
    /// A request arrives, whether or not its monitor still waits for the answer.
    Arrive {
        id: u64,
        monitor: usize,
        receiver: usize,
        payload: Payload,
    },
    /// A request has reached this receiver of several.
    Reached {
        id: u64,
        monitor: usize,
        receiver: usize,
        payload: Payload,
    },
    /// The journal takes the requests that wait.
    Take {
        receiver: usize,
        generation: u64,
    },
    /// A publisher gets an answer, or an error instead.
    Answered {
        id: u64,
        answer: Result<Answer, ConnectFailure>,
    },
    /// The journal's thread does its maintenance.
    Maintenance {
        receiver: usize,
    },
    /// A sample without a number is sent.
    Unnumbered {
        receiver: usize,
    },
    /// The process ends, in one of the ways of [`Exit`](crate::monitor::Exit).
    MonitorEnds {
        monitor: usize,
    },
    MonitorStarts {
        monitor: usize,
    },
    ReceiverCrashes {
        receiver: usize,
    },
    /// It is killed, and starts with an older copy of its disk.
    ReceiverForgets {
        receiver: usize,
    },
    /// It is stopped by SIGTERM.
    ReceiverStops {
        receiver: usize,
    },
    ReceiverStarts {
        receiver: usize,
    },
    /// Begins or ends a time in which it answers everything with 503.
    Busy {
        receiver: usize,
        is_busy: bool,
    },
    /// Begins or ends a time in which its disk is full.
    Full {
        receiver: usize,
        is_full: bool,
    },
    /// Sets what fails on a monitor's disk.
    Disk {
        monitor: usize,
        faults: Faults,
    },
    /// Sets how wrong a monitor's clock is.
    Clock {
        monitor: usize,
        wrong_ms: i64,
    },
    /// Sets how wrong a receiver's clock is, and with it those of all monitors if they share it.
    ReceiverClock {
        receiver: usize,
        wrong_ms: i64,
        is_shared: bool,
    },
    /// A member of those that share a store reads on, keeps leases and commits.
    GroupTurn {
        member: usize,
    },
    SummarizerStarts {
        member: usize,
    },
    SummarizerEnds {
        member: usize,
        is_killed: bool,
    },
    /// It is stopped for a while, by SIGSTOP.
    MemberPauses {
        member: usize,
    },
    /// A primary of the shared engine fails over.
    FailsOver,
    /// Begins or ends a time in which a primary cannot be reached.
    PrimaryAway {
        primary: u16,
        is_away: bool,
    },
    /// All faults end: from here on everything must be delivered.
    FaultsEnd,
}

impl Event {
    /// Its part of the digest.
    pub(super) fn code(&self) -> u64 {
        let (kind, of) = match self {
            Self::Tick { monitor, .. } => (1, *monitor as u64),
            Self::PublisherTurn {
                monitor, receiver, ..
            } => (2, (monitor * 16 + receiver) as u64),
            Self::Arrive { id, .. } => (3, *id),
            Self::Take { receiver, .. } => (4, *receiver as u64),
            Self::Answered { id, .. } => (5, *id),
            Self::Maintenance { receiver } => (6, *receiver as u64),
            Self::Unnumbered { receiver } => (7, *receiver as u64),
            Self::MonitorEnds { monitor } => (8, *monitor as u64),
            Self::MonitorStarts { monitor } => (9, *monitor as u64),
            Self::ReceiverCrashes { receiver } => (10, *receiver as u64),
            Self::ReceiverStops { receiver } => (11, *receiver as u64),
            Self::ReceiverStarts { receiver } => (12, *receiver as u64),
            Self::Busy { receiver, .. } => (13, *receiver as u64),
            Self::Full { receiver, .. } => (14, *receiver as u64),
            Self::Disk { monitor, .. } => (15, *monitor as u64),
            Self::Clock { monitor, .. } => (16, *monitor as u64),
            Self::FaultsEnd => (17, 0),
            Self::ReceiverClock { receiver, .. } => (18, *receiver as u64),
            Self::ReceiverForgets { receiver } => (19, *receiver as u64),
            Self::Reached { id, .. } => (20, *id),
            Self::GroupTurn { member } => (21, *member as u64),
            Self::SummarizerStarts { member } => (22, *member as u64),
            Self::SummarizerEnds { member, .. } => (23, *member as u64),
            Self::MemberPauses { member } => (24, *member as u64),
            Self::FailsOver => (25, 0),
            Self::PrimaryAway { primary, .. } => (26, (*primary).into()),
        };
        kind << 56 | of
    }

    /// One line for the log.
    pub(super) fn summary_line(&self, world: &World) -> String {
        match self {
            Self::Arrive {
                id,
                monitor,
                receiver,
                payload: Payload::DeliveryQuery,
            } => format!("Arrive {id} from {monitor} at {receiver} GET delivery"),
            Self::Arrive {
                id,
                monitor,
                receiver,
                payload: Payload::Batch(batch),
            } => {
                let request = encode(batch);
                let body = String::from_utf8_lossy(&request.body);
                let body: String = body.chars().take(200).collect();
                format!(
                    "Arrive {id} from {monitor} at {receiver} {:?} {body}",
                    request.target
                )
            }
            Self::Answered { id, .. } if !world.in_flight.contains_key(id) => {
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
