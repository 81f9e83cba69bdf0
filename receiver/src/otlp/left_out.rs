//! What is left out of a request, and why: counted all, and named as far as a message goes.

use std::fmt;

use lizmon_protocol::name::NameError;

/// Most reasons that are named.
const REASONS_SHOWN_MAX: usize = 20;
/// Bytes of a metric's name: of a long one that is enough to know it.
const METRIC_SHOWN_BYTES_MAX: usize = 200;

/// Why a point, or a part of one, is left out, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeftOutReason {
    /// Nobody knows whose it is.
    #[error("its resource names no host: set `host.name`, or `service.instance.id`")]
    NoHost,
    /// A series has a name.
    #[error("it has no name")]
    NoName,
    /// A kind of metric that is newer than this, or older.
    #[error("it is no gauge, sum, histogram, exponential histogram or summary")]
    NoKind,
    /// Which of them counts is not known.
    #[error("it is of more than one kind")]
    ManyKinds,
    /// As `instrumentationLibraryMetrics`.
    #[error("it is in a field that OTLP gave up in 0.15: update what sends it")]
    OldForm,
    /// A number without one.
    #[error("it has no value: JSON has a NaN as \"NaN\"")]
    NoValue,
    /// Both `asInt` and `asDouble`.
    #[error("it has two values")]
    TwoValues,
    /// Not a [`Value`](lizmon_protocol::sample::Value).
    #[error("a value is NaN, infinite, or beyond 1e290")]
    Value,
    /// Of a counter.
    #[error("a counter is never below zero")]
    Negative,
    /// It has none, or one that cannot be.
    #[error("its time is 0, or cannot be")]
    Time,
    /// Past what is summarized.
    #[error("its time is too long ago")]
    TooOld,
    /// A clock is wrong.
    #[error("its time is in the future: one of the two clocks is wrong")]
    InFuture,
    /// Neither delta nor cumulative.
    #[error("its temporality is neither delta nor cumulative")]
    NoTemporality,
    /// A rate needs a time.
    #[error("it is a delta without a start before its time, so it has no rate")]
    NoStart,
    /// A series has one value at a time.
    #[error(
        "there is one of the same series and time: give their points, or the services, attributes that differ"
    )]
    SameTime,
    /// The label would be too long.
    #[error("its name and attributes: {0}")]
    Label(NameError),
}

/// What was left out of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// So many points.
    pub points: u64,
    /// So many of them because of their times.
    pub untimely: u64,
    /// So many values: of a point that was not looked into, one. It is the work that they were.
    pub values: u64,
    named: Vec<NamedFault>,
    more: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedFault {
    metric: String,
    /// What follows the metric's name.
    end: &'static str,
    reason: LeftOutReason,
    times: u64,
}

impl LeftOut {
    /// Adds so many points of a metric; none, if only a part of a point was left out, or if it has
    /// no points. `end` is what follows the metric's name in that of the part.
    ///
    /// It takes as long for a long name as for a short one.
    pub(super) fn add(
        &mut self,
        metric: &str,
        end: &'static str,
        reason: LeftOutReason,
        points: u64,
    ) {
        let times = points.max(1);
        self.points += points;
        self.values += times;
        if matches!(reason, LeftOutReason::TooOld | LeftOutReason::InFuture) {
            self.untimely += points;
        }
        let metric = &metric[..metric.floor_char_boundary(METRIC_SHOWN_BYTES_MAX)];
        let mut named = self.named.iter_mut();
        // Names come last: they may be long, and start the same.
        let same = named
            .find(|named| named.reason == reason && named.end == end && named.metric == metric);
        if let Some(named) = same {
            named.times += times;
        } else if self.named.len() < REASONS_SHOWN_MAX {
            self.named.push(NamedFault {
                metric: metric.to_owned(),
                end,
                reason,
                times,
            });
        } else {
            self.more += times;
        }
    }

    /// Whether nothing was left out, not even a part of a point.
    pub fn is_nothing(&self) -> bool {
        self.named.is_empty()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("left out: ")?;
        for (at, named) in self.named.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            let NamedFault {
                metric,
                end,
                reason,
                times,
            } = named;
            write!(f, "{between}`{metric}{end}`")?;
            if *times > 1 {
                write!(f, " ({times} times)")?;
            }
            write!(f, ": {reason}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
