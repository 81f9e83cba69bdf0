//! Prometheus reads from a receiver: what it computes is what the API says, and who may read what.
//! It writes to one: everything that it has is there, once.

use std::time::Duration;

use crate::harness::process::PATIENCE;

pub(crate) mod requests;
pub(crate) mod server;
pub(crate) mod writes;

mod dump;
mod link;
mod reading;
mod writing;

#[expect(
    clippy::disallowed_methods,
    reason = "other processes are waited for, and killed at a random moment"
)]
pub(crate) async fn moment(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = async {
        while !is_so().await {
            moment(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waited).await;
    in_time.unwrap_or_else(|_| panic!("not yet: {what}"));
}
