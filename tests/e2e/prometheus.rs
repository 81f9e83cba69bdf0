//! Prometheus reads from a receiver: what it computes is what the API says, and who may read what.

pub(crate) mod requests;
pub(crate) mod server;

mod reading;
