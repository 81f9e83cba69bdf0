//! Our own certificate, verified as a server would verify it.

use rustls_pki_types::CertificateDer;

use crate::path::{Fault, PathVerifier, Usage, unix_time};

/// What is known about our own certificate when a server rejects it. Times are epoch seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnCertificateState {
    /// Why a server that trusts the same roots would reject it, by the local clock.
    pub fault: Option<Fault>,
    /// The first and the last valid second of the certificate.
    pub validity: Option<(u64, u64)>,
    /// The current time of the local clock.
    pub now: u64,
    /// The current time of the server's clock, if the server returned it.
    pub server_clock: Option<u64>,
}

/// Our own certificate and its issuers.
pub struct OwnChain {
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Verifies paths to the trusted roots.
    pub(crate) paths: PathVerifier,
    /// The first and the last valid second of the certificate.
    pub(crate) validity: (u64, u64),
}

impl OwnChain {
    /// Why a server that trusts the same roots would reject it. Does not check revocation: the
    /// server has the newer CRLs.
    pub fn fault(&self, now: u64) -> Option<Fault> {
        let (leaf, above) = self.chain.split_first()?;
        let judged = self
            .paths
            .verify(leaf, above, unix_time(now), Usage::Client);
        judged.err()
    }

    /// The local view of the certificate, without the server's clock.
    pub fn state(&self, now: u64) -> OwnCertificateState {
        OwnCertificateState {
            fault: self.fault(now),
            validity: Some(self.validity),
            now,
            server_clock: None,
        }
    }
}
