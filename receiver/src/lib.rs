//! The receiver: accepts samples over mutual TLS, makes them durable, and answers queries with
//! summaries.
//!
//! ```text
//!  mTLS ──> router ──> token ──> authorize ──> ingest ──> journal ──> 204
//!                                   │                      │    └─ append ──> store
//!                                 Permit                   v                    ^
//!                                                      summarize ─── commit ────┘
//!                                                          │
//!  mTLS <── router <──────────────────── query <───────────┘
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`router`] | the routes and their handlers; errors become problem documents here |
//! | [`token`] | access tokens: minted, verified |
//! | [`authorize`] | who may do what |
//! | [`body`] | reads bodies, within limits of bytes, time and memory |
//! | [`ingest`] | turns a body into a submission |
//! | [`journal`] | admits submissions, makes them durable in groups, answers them |
//! | [`summarize`] | counts what the journal holds, and commits it |
//! | [`query`] | answers readers from the summaries in memory |
//! | [`prometheus`] | what Prometheus sends and asks for, as it does |
//! | [`otlp`] | metrics as OpenTelemetry sends them |
//! | [`protobuf`] | messages of protobuf, bounded before they are decoded |
//! | [`silence`], `glance` | which hosts are overdue; what a list of hosts shows of each |
//! | [`alarms`] | judges hosts by rules, and tells what they come to |
//! | `view` | what the web page shows |
//! | [`watch`] | how full a shared store is, and how far behind: refuses samples before its servers would |
//! | [`store`] | where journal and state are kept: SQLite, or Redis for several processes |
//! | [`receiver_keys`] | how receivers that share a store know each other's keys |
//! | [`peers`] | what receivers that share a store tell each other: token keys, CRLs |
//! | [`clock`] | whether this machine's clock can be trusted |
//! | [`summarizer`] | a process that commits shards of a shared store, and serves nobody |
//! | [`health`], [`metrics`] | what an operator is warned of; what is counted |
//! | `certificates` | which certificates were seen here, and by which ones hosts report |
//! | `crl_fetch` | fetches CRLs from `liz-ca` |
//! | [`patience`] | starts that wait for a store whose servers are away |
//! | [`periodic`] | threads that do something again and again |
//! | [`config`], `serve` | flags; start, run and stop |
//!
//! What holds, and where:
//!
//! - A handler needs a [`authorize::Permit`], and only `authorize` makes one.
//! - A sample is durable before its POST is answered: [`journal`] alone answers one.
//! - Summaries change in [`summarize`] alone, and only by what the journal holds, in its order.
//! - The receiver cannot issue a certificate: it links no CA and holds no CA key.
//! - Nothing outside [`store`], [`config`] and `serve` knows which store it is, but the program's
//!   commands `check`, `backup` and `restore` (`command.rs`), which are SQLite's.
//! - Receivers that share a store trust each other by their certificates: [`receiver_keys`].
//!
//! To add a route, a limit, a metric or a store: `docs/architecture.md`, "Where do I add …".

pub mod body;
mod certificates;
pub mod clock;
pub mod config;
pub mod health;
pub mod history;
pub mod metrics;
pub mod router;
pub mod token;

pub mod alarms;
pub mod authorize;
mod glance;
pub mod ingest;
pub mod journal;
pub mod otlp;
pub mod patience;
pub mod peers;
pub mod periodic;
pub mod prometheus;
pub mod protobuf;
pub mod query;
pub mod receiver_keys;
pub mod silence;
pub mod store;
pub mod summarize;
pub mod summarizer;
pub mod watch;

mod crl_fetch;
mod serve;
mod view;

pub use clock::Clocks;
pub use config::Config;
pub use lizmon_mtls::Clock;
pub use serve::{Receiver, ReceiverError};
