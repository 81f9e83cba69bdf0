//! Rotation: replaces the issuing CA or the root in three steps, each of which can be taken back.
//!
//! ```text
//!            --next: publish         --next: use             --next: retire
//!   steady ------------------> published ----------> in use ---------------> steady
//!          <------------------           <----------        <---------------
//!            --back: withdraw         --back           --back: trust again
//!
//!   new CA        next                current                 current
//!   old CA        current             old                     retired (gone when the next rotation begins)
//!   crl.pem       both                both                    the new one's
//!   root.crt      both roots          both roots              the new root
//! ```
//!
//! A new root comes with an issuing CA of its own, so that the chain of a leaf says which root it
//! needs. The ledger holds the state, and the files follow it: if that is interrupted, the next
//! process that opens the CA finishes it. A CA's CRL is in `crl.pem` before its root is in
//! `root.crt`, and the root is removed before the CRL, so that at no moment the two files refuse a
//! valid certificate.
//!
//! | module | what it does |
//! | --- | --- |
//! | `stage` | how far a rotation is, and its options |
//! | `holders` | which holders the next step would leave behind |
//! | [`reconcile`] | makes the files follow the ledger |
//! | `steps` | the steps |

mod holders;
pub(super) mod reconcile;
mod stage;
mod steps;

pub use self::stage::{PendingHolder, RotateOptions, Rotation, Stage};
