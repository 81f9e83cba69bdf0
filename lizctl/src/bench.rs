//! Load for a receiver, and what became of it.
//!
//! ```text
//! nodes (identities in memory) -> link (TLS, HTTP, token) -> worker <- pace (when each is due)
//!                                                              │
//!                               report <- verdict <- tally <───┘
//! ```
//!
//! Every record has a number, as a monitor's. One whose answer is lost is sent again under its number,
//! so that what was taken can be compared with what the receiver has, record by record.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`local`] | a receiver of its own, in a process of its own |
//! | [`http_version`] | HTTP/1.1 or 2 |
//! | [`nodes`] | issues the identities |
//! | [`link`] | a connection with its token |
//! | [`pace`] | when each request is due, and when the run is over |
//! | [`tally`] | latencies and counts |
//! | [`worker`] | sends one request after the other |
//! | [`run`] | all workers, from start to end |
//! | [`server`] | CPU time and memory of a receiver on this machine |
//! | [`verdict`] | asks the receiver what it has |
//! | [`report`] | the results as JSON and as text |

pub(crate) mod http_version;
pub(crate) mod link;
pub(crate) mod local;
pub(crate) mod nodes;
pub(crate) mod pace;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod tally;
pub(crate) mod verdict;
pub(crate) mod worker;
