//! Certificates from a `liz-ca` over the network (RFC 7030): joining with a one-time token, renewal
//! with the current certificate, and CRLs.
//!
//! ```text
//! join:   cacerts, unverified ── fingerprint matches? ──> TLS to exactly that root
//!                             ──> cacerts, token + CSR ──> pair, root.crt
//! renew:  TLS with the current pair ──> cacerts, CSR ──> pair, root.crt
//! ```
//!
//! Nothing is trusted before the fingerprint matches. The token is sent only to a server that
//! proves to be the `ca` of that root. The key is generated locally and never leaves the machine.
//! An answer is checked before any file is written.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`enrolment`] | join and renewal |
//! | `ca` | the requests to `liz-ca` |
//! | [`answer`] | extracts certificates from PKCS #7, and checks that they match the request |
//! | `roots` | updates the file of roots |
//! | [`renewer`] | renews while a program runs |
//! | [`crls`] | fetches the CRLs that servers are checked against |

pub mod answer;
mod ca;
pub mod crls;
pub mod enrolment;
pub mod error;
pub mod fetch_schedule;
pub mod flags;
pub mod log_once;
pub mod renewer;
mod root_fingerprint;
mod roots;

pub use enrolment::{JoinRequest, Obtained, join, renew};
pub use error::EnrolError;
pub use flags::CredentialFlags;
pub use root_fingerprint::{MalformedFingerprint, RootFingerprint, RootFingerprints};
