//! The CA as its users see it: a folder of files, and what is done with it over time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attributes;
mod authority;
mod bulk;
mod clock;
mod copies;
mod enrol;
mod hostile;
mod init;
mod inspect;
mod life;
mod renewals;
mod rotation;
mod sandbox;
