//! The typed client of a lizmon receiver, over mutual TLS.
//!
//! ```text
//! files -> Credentials -> Client -> token (kept, renewed) -> publish  -> Result<_, Error>
//!            checked       TLS                            -> read
//! ```
//!
//! It makes one request at a time and reports its exact result. The caller decides when to retry.
//! The current time is an argument: `now` is epoch seconds. The client trusts only the given CA
//! file: no system roots, no proxies from the environment, no redirects.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`client`] | the client and its requests |
//! | `encoding` | how paths and bodies are encoded |
//! | `token` | the lifetime of a kept token |
//! | [`error`] | errors of requests |

pub mod client;
mod encoding;
pub mod error;
mod token;

pub use client::{Client, Forwarded};
pub use error::Error;
pub use lizmon_pki::credentials::{Credentials, CredentialsError};
pub use lizmon_transport::{BaseUrl, BaseUrlError, ConnectError, ConnectFailure, ServerClock};
