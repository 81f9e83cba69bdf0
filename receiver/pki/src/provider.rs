//! The crypto provider of every TLS connection and signature of ours.

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// aws-lc-rs with TLS_AES_128_GCM_SHA256 first: the server goes by our order, and SHA-384 has no
/// hardware support on most machines.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
