//! HTTPS to one lizmon server, as every client of ours speaks it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`base_url`] | where a server is |
//! | [`https`] | how a connection is made, and what every answer says: Retry-After, the server's clock |
//! | [`error`] | why a connection failed |
//! | `certificate_text` | why a certificate was refused, in words |

pub mod base_url;
mod certificate_text;
pub mod error;
pub mod https;

pub use base_url::{BaseUrl, BaseUrlError};
pub use error::{ConnectError, ConnectFailure};
pub use https::ServerClock;
