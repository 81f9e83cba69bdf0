//! HTTPS to one lizmon server, for all lizmon clients.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`base_url`] | the URL of a server |
//! | [`https`] | connections, and the headers of every response: Retry-After, the server's clock |
//! | [`error`] | errors of connections |
//! | `certificate_text` | error texts for rejected certificates |

pub mod base_url;
mod certificate_text;
pub mod error;
pub mod https;

pub use base_url::{BaseUrl, BaseUrlError};
pub use error::{ConnectError, ConnectFailure};
pub use https::ServerClock;
