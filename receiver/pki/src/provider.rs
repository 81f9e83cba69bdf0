//! The crypto provider for all TLS connections and signatures.

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// aws-lc-rs with TLS_AES_128_GCM_SHA256 first. The server prefers its own order, and most machines
/// have no hardware support for SHA-384.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
