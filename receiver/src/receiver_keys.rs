//! How receivers that share a store know each other's token keys.
//!
//! ```text
//!  token key ──> key statement, signed by the certificate's key ──> store ──> verified by the others
//!      │                                                                            │
//!      └──> signs tokens and groups                        verifies groups and tokens by that key
//! ```
//!
//! What holds:
//!
//! - Whoever can write to the store, but has no receiver's certificate, cannot publish a key.
//! - A key is trusted for as long as its receiver's certificate is: not after it ends, and not once
//!   a CRL in force revokes it. It is asked at each use.
//! - A receiver whose certificate others would refuse appends nothing, rather than what would not
//!   be summarized.

mod signer;
mod statement;
mod verifier;

pub use self::signer::ReceiverKeys;
pub use self::statement::{KeyRefusal, KeyStatement};
pub use self::verifier::KeyStatementVerifier;

#[cfg(test)]
mod tests;
