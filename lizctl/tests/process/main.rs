//! The shipped `lizctl` as a process: exit codes, what goes to stdout and what to stderr, files and modes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ask;
mod desk;
mod life;
mod mint;
