//! `liz-ca`: enrolment and renewal over the network, RFC 7030 (EST).
//!
//! ```text
//! TLS acceptor (client certificate requested, CRLs) --> router --> rate limits --> AuthorityHandle (ledger, keys; blocking threads)
//! ```
//!
//! This layer knows HTTP and asks the authority for everything else. Anyone may fetch the CA's
//! certificates and the CRLs. A certificate is issued for a join token, or to the holder of the
//! current one.
//!
//! | module | what it does |
//! | --- | --- |
//! | `config` | how the service is configured |
//! | `server` | starts, runs and maintains it |
//! | `router` | the routes, and what every request goes through |
//! | `handlers` | what each route does |
//! | `body`, `est`, `response` | request bodies, certificates as response bodies, error responses |
//! | `rate_limits` | how often a client may try |
//! | `handle` | the open CA, reopened after a rotation |

mod body;
mod config;
mod est;
mod handle;
mod handlers;
mod rate_limits;
mod response;
mod router;
mod server;

pub use self::config::{BODY_TIMEOUT, Config, ServiceCertificate};
pub use self::rate_limits::{Rate, RateLimits};
pub use self::router::{CaRoute, routes};
pub use self::server::{Service, ServiceError, serve};
