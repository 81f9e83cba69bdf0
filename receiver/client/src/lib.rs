//! The typed client of a lizmon receiver, over mutual TLS.
//!
//! ```text
//! files -> Credentials -> Client -> token (kept, renewed) -> publish  -> Result<_, Error>
//!            checked       TLS                            -> read
//! ```
//!
//! It does one request at a time and says exactly what came of it; when to try again is its user's decision. The clock
//! is an argument too: `now` is epoch seconds. It trusts the CA file it is given and nothing else: no system roots,
//! no proxies from the environment, no redirects.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`client`] | the requests |
//! | `token` | how long a token is kept |
//! | [`error`] | what can come of them |

pub mod client;
pub mod error;
mod token;

pub use client::Client;
pub use error::Error;
pub use lizmon_pki::credentials::{Credentials, CredentialsError};
pub use lizmon_transport::{BaseUrl, BaseUrlError, ConnectError, ConnectFailure, ServerClock};
