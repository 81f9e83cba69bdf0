//! The wire format of lizmon: names, routes, samples, summaries, tokens and problems.
//!
//! This crate has types only: no I/O, no clock, no cryptography. A type here cannot hold an invalid
//! value. Values are validated when they are parsed, and not again later.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`name`] | node names, labels, trust domains, roles and the SPIFFE ID that joins them |
//! | [`sample`] | epochs, values, sample sets, batches and producers |
//! | [`summary`] | the summaries readers get |
//! | [`history`] | the intervals of one series further back |
//! | [`alarm`] | alarms, and what silences a host |
//! | [`live`] | the events of a stream of changes |
//! | [`certificate`] | the certificates that a receiver has seen |
//! | [`delivery`] | the sequence numbers of a producer that have arrived |
//! | [`facts`] | what a machine is, as its monitor says |
//! | [`token`] | the access token's claims, and the token endpoint's responses |
//! | [`enrol`] | the routes of enrolment, and the join token |
//! | [`problem`] | all errors of the API, RFC 9457 |
//! | [`route`] | paths: building and parsing |

pub mod alarm;
pub mod certificate;
pub mod delivery;
pub mod enrol;
pub mod facts;
pub mod history;
pub mod live;
pub mod name;
pub mod problem;
pub mod route;
pub mod sample;
pub mod summary;
pub mod token;
