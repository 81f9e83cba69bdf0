//! Alarm rules: judged on closed intervals, told by webhook, Alertmanager, mail or a command.
//!
//! ```text
//!  rules (TOML) ──> judge ──> alarms of a host ──> notices ──> channels ──> people
//!                     ^            (a document)        └── told ──┘
//!               what is observed
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`rules`] | reads rules and channels from a file, over those that are built in |
//! | [`judge`] | what an observation changes in the alarms of a host: pure |
//! | [`state`] | the alarms of a host and the notices that are not told yet, as they are stored |
//! | [`silence`] | alarms that an operator does not want to be told of for a while |
//! | [`sight`] | since when the receiver sees its hosts: pure |
//! | [`message`] | a notice in words |
//! | [`template`] | templates, and their limits |
//! | [`board`] | the alarms there are, for who asks |
//! | [`channel`] | tells: each channel has a queue and a task of its own |
//!
//! What holds:
//!
//! - What decides has no clock and does no I/O: the time is an argument.
//! - A notice has an identifier that is the same however often it is sent.
//! - A secret comes from a file, and is in no `Debug` and no error.

pub mod board;
pub mod channel;
pub mod judge;
pub mod message;
pub mod rules;
pub mod sight;
pub mod silence;
pub mod state;
pub mod template;
