//! A server on this machine's loopback address that shows a receiver's page to a browser, which has
//! no certificate.
//!
//! ```text
//! browser --HTTP--> admission -> session -> paths -> upstream --mutual TLS--> receiver
//!                   method,      key, then  which     certificate, token
//!                   Host, Origin cookie     paths
//! ```
//!
//! It can read what its certificate can, so it asks for more than that the request comes from this
//! machine: other users are here too, and pages of strangers in the same browser. It hands on GET
//! and HEAD of a fixed list of paths, to one receiver. Where the CA's folder is on this machine too,
//! it adds and revokes machines itself ([`machines`]). On a Unix socket the mode of the file is the
//! guard, in place of cookie, Host and Origin.

mod admission;
mod answers;
mod handler;
mod listener;
mod machine_pages;
mod machines;
mod paths;
mod session;
mod upstream;

pub(crate) use self::handler::Loopback;
pub(crate) use self::listener::{Listener, bind, bind_socket, serve};
pub(crate) use self::machines::Machines;
pub(crate) use self::session::{KEY_LIFETIME_SECS, Session};
pub(crate) use self::upstream::Upstream;
