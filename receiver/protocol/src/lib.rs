//! What leaves a lizmon process: names, routes, samples, summaries, tokens and problems.
//!
//! This crate knows the words and nothing else: no I/O, no clock, no cryptography. A type here cannot hold a bad
//! value: past the edge where it was parsed nobody checks again.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`name`] | node names, labels, trust domains, roles and the SPIFFE ID that joins them |
//! | [`sample`] | epochs, values, sample sets, batches, and who numbered them |
//! | [`summary`] | the summaries readers get |
//! | [`certificate`] | which certificates a receiver has seen |
//! | [`delivery`] | which numbers of a producer have arrived |
//! | [`token`] | the access token's claims, and the token endpoint's answers |
//! | [`enrol`] | the routes of enrolment, and the join token |
//! | [`problem`] | every error the API answers, RFC 9457 |
//! | [`route`] | paths, built and taken apart |

pub mod certificate;
pub mod delivery;
pub mod enrol;
pub mod name;
pub mod problem;
pub mod route;
pub mod sample;
pub mod summary;
pub mod token;
