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
//! | [`credentials`] | certificate, key and CA from files: checked, and reloaded when they change |
//! | `verify` | the server's certificate must bear a server's role, besides the host's name |
//! | `token` | how long a token is kept |
//! | [`client`] | the requests |
//! | [`enrol`] | joining, and renewal: certificates from `liz-ca` |
//! | [`error`] | what can come of them |
//! | `refusal` | why a certificate was refused, in words |

mod base_url;
pub mod client;
pub mod credentials;
pub mod enrol;
pub mod error;
mod refusal;
mod token;
mod verify;

pub use base_url::{BaseUrl, BaseUrlError};
pub use client::{Client, ServerClock};
pub use credentials::{Credentials, CredentialsError};
pub use error::{Error, Obstacle};
