//! The lizmon certificate authority as a library: offline work on one folder of files, no sockets, no clock.
//!
//! ```text
//! root.key --signs--> issuing.crt --signs--> nodes/NAME.crt receivers/… readers/… operators/…
//!    |                    |
//!    +----- crl.pem ------+          ledger.db: every certificate ever signed, and the CRLs' numbers
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`authority`] | makes and opens the CA, issues, revokes, keeps the CRLs fresh |
//! | [`profile`] | what stands in each kind of certificate: the only templates there are |
//! | [`key`] | key pairs, and the public key of a signing request, which is all we take from one |
//! | [`crl`] | when a CRL is signed again, and with what in it |
//! | [`ledger`] | the SQLite file, its schema and its lock |
//! | [`enrol`] | join tokens, and certificates for those who bring one, or their current certificate |
//! | [`est`] | how requests come over the network, and certificates go |
//! | [`audit`] | the log of every deed, chained by hashes |
//! | [`passphrase`] | CA keys that are encrypted |
//! | [`layout`] | which file lies where |
//! | [`disk`] | files that are written whole or not at all, keys that only their owner can read |
//! | [`inspect`] | what a certificate, key, CRL or request says, as a plain struct |
//! | [`verify`] | the judgement of a receiver on a certificate file |
//!
//! A signing request's subject, names and extensions are never read into a certificate. A certificate never
//! outlives its issuer. No certificate leaves before the ledger knows it.
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

pub mod audit;
pub mod authority;
pub mod crl;
pub mod disk;
pub mod enrol;
pub mod error;
pub mod est;
mod founding;
pub mod inspect;
pub mod key;
pub mod layout;
pub mod ledger;
pub mod passphrase;
pub mod profile;
pub mod service;
mod signer;
pub mod verify;

pub use error::Error;
