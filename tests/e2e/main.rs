//! End-to-end tests: real TLS, real certificates, real SQLite, the shipped programs.
//!
//! ```text
//! World { ca, receiver, clock }          a theme's module asks it        Answer
//!    |  the receiver runs in this process, on port 0, under the test's clock
//!    +-- or as the shipped program beside this one: target/debug/liz-receiver
//! ```
//!
//! The tests check what docs/http-api.md and its neighbours promise to other people's clients, so
//! they repeat codes and keys instead of taking them from the crates.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod alarm_channels;
mod alarms;
mod answer_coding;
mod authorization;
mod balancers;
mod ca_life;
mod closed_connections;
mod connection_end;
mod crash;
mod crl_push;
mod crowd;
mod delivery;
mod dependencies;
mod documents;
mod enrolment;
mod expiry;
mod facts;
mod gateways;
mod golden;
mod grafana;
mod harness;
mod history;
mod hostile;
mod interop;
mod limits;
mod manual;
mod matrix;
mod metrics;
mod monitoring;
mod oauth;
mod oauth_clients;
mod openapi;
mod opentelemetry;
mod order_of_work;
mod page;
mod pipeline;
mod programs;
mod prometheus;
mod refusals;
mod restored;
mod scopes;
mod shared_store;
mod store_damage;
mod token_keys;
mod trust;
mod units;
mod workers;
