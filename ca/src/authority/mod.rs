//! The CA's decisions: what is issued, renewed, revoked, rotated, backed up.
//!
//! This layer combines the others: it reads and writes the ledger, signs with keys, and writes
//! files. It takes the time as an argument and knows no network.
//!
//! | module | what it does |
//! | --- | --- |
//! | `ca` | [`Authority`], an open CA |
//! | `init`, `new_ca`, `open` | creates and opens a CA |
//! | `issue` | issues a leaf to a file |
//! | `bulk` | issues leaves to many names, in groups |
//! | `deliver` | copies what holders' machines need |
//! | `in_memory` | issues leaves for a while, to no file |
//! | `enrol`, `renewal` | issues a leaf to a network client, for a join token or the current certificate |
//! | `revocation`, `crls`, `crl_file` | revokes, signs CRLs, publishes `crl.pem` |
//! | `rotation` | replaces the issuing CA or the root |
//! | `expiry` | warns before a CA expires |
//! | `backup`, `restore`, `copies` | copies of the CA, and what a copied ledger must not forget |
//! | `service_certificate` | the certificate of `liz-ca` itself |
//! | `error` | one error for each operation, and [`Error`] for all |

mod backup;
mod bulk;
mod ca;
mod copies;
mod crl_file;
mod crls;
mod deliver;
mod enrol;
mod error;
mod expiry;
mod in_memory;
mod init;
mod issuance;
mod issue;
mod lifetimes;
mod new_ca;
mod open;
mod renewal;
mod restore;
mod revocation;
mod rotation;
mod service_certificate;

pub use self::bulk::{GROUP_NAMES_MAX, LeafTerms};
pub use self::ca::Authority;
pub use self::crls::SignedCrl;
pub use self::deliver::has_leaf;
pub use self::error::{Error, InitError, IssueError, RestoreError, RevokeError, RotationError};
pub use self::expiry::CaExpiry;
pub use self::in_memory::InMemory;
pub use self::init::InitOptions;
pub use self::issuance::{Enrolled, IssuanceError, JoinTokenError, RenewalError};
pub use self::issue::{Issued, KeySource, Request};
pub use self::lifetimes::{
    LEAF_LIFETIME, OVERLAP, RENEWED_VALID_MAX, SUPERSEDED_INTERVAL, TOKEN_TTL, TOKEN_TTL_MAX,
};
pub use self::restore::RestoreOutcome;
pub use self::revocation::Revocation;
pub use self::rotation::{PendingHolder, RotateOptions, Rotation, Stage};
pub use crate::pki::CaKind;
