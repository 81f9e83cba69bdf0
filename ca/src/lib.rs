//! The lizmon certificate authority: a library that works offline on one folder of files, and the
//! service `liz-ca`.
//!
//! ```text
//! root.key --signs--> issuing.crt --signs--> nodes/NAME.crt receivers/… readers/… operators/…
//!    |                    |
//!    +----- crl.pem ------+          ledger.db: every certificate ever signed, the CRLs, the audit log
//! ```
//!
//! The crate has five layers. Each may use the layers below it, and none uses one above.
//!
//! ```text
//! service      HTTP: EST enrolment and renewal, CRL download. Knows HTTP alone, asks the authority.
//!    |
//! authority    decides: issues, renews, revokes, rotates, backs up. Time is an argument; no network.
//!    |
//! ledger       SQLite: stores what was decided, and the audit log. All SQL is here.
//!    |
//! pki          X.509, keys, CRLs, signing requests. No ledger, no policy.
//!    |
//! files        paths, modes, atomic writes. No content.
//! ```
//!
//! Only the public key is taken from a signing request. A certificate never outlives its issuer. No
//! certificate is given out before the ledger has it.
//!
//! ```
//! use lizmon_ca::authority::{Authority, InitOptions, Request};
//! use lizmon_protocol::name::Role;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let certs = dir.path().join("certs");
//! let now = 1_800_000_000;
//! let authority = Authority::init(&certs, &InitOptions::default(), now)?;
//! let issued = authority.issue(Request::new(Role::Node, "web1".parse()?), now)?;
//! assert_eq!(issued.spiffe_id.to_string(), "spiffe://lizmon.internal/node/web1");
//! assert!(certs.join("nodes/web1.key").exists());
//! # Ok(())
//! # }
//! ```

pub mod authority;
pub mod files;
pub mod ledger;
pub mod pki;
pub mod service;

pub use authority::Error;
