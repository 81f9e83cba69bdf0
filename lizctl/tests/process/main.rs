//! The shipped `lizctl` as a process: exit codes, stdout and stderr, files and modes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
#[cfg(unix)]
mod bulk;
mod client_verbs;
mod issuance;
mod keys;
mod profiles;
mod revocation;
mod rotation;
mod sandbox;
