//! Small documents that are kept with a host or a shard, beside its summaries. The store does not
//! know what they say.

/// The largest body of a document.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 10;

/// What a document is. There is at most one of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// What a monitor says of its machine.
    Facts,
    /// Until when an operator has silenced the host's alarms, and why.
    Silence,
    /// The state of alarms.
    Alarms,
    /// The tags of the certificate that the host last got a token with.
    Tags,
    /// Who reports the host, and when each did last, once a gateway did.
    Reporters,
    /// Which of its metrics are counters, where metadata says otherwise than names.
    MetricKinds,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Facts,
        Self::Silence,
        Self::Alarms,
        Self::Tags,
        Self::Reporters,
        Self::MetricKinds,
    ];

    /// The number that stands for it in journals and stores. It never changes.
    pub const fn number(self) -> u8 {
        match self {
            Self::Facts => 1,
            Self::Silence => 2,
            Self::Alarms => 3,
            Self::Tags => 4,
            Self::Reporters => 5,
            Self::MetricKinds => 6,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether it comes from the host itself, which is there then.
    pub const fn is_from_host(self) -> bool {
        matches!(self, Self::Facts)
    }

    /// What is lost with it, for messages.
    pub(super) const fn loss(self) -> &'static str {
        match self {
            Self::Facts => "what is known of the machine is lost, until its monitor says it again",
            Self::Silence => "a silence is lost: its alarms are told again",
            Self::Alarms => "the state of alarms is lost: those that still hold are raised again",
            Self::Tags => "its tags are lost, until it gets its next token",
            Self::MetricKinds => {
                "which metrics are counters is lost, until Prometheus sends metadata again"
            }
            Self::Reporters => "who reported it is lost, until somebody does again",
        }
    }
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// What it is.
    pub kind: DocumentKind,
    /// At most [`DOCUMENT_BYTES_MAX`] bytes. In a change, an empty one removes the document.
    pub body: Box<[u8]>,
}
