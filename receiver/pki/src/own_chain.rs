//! Our own certificate as a server would judge it.

use rustls_pki_types::CertificateDer;

use crate::path::{Fault, PathVerifier, Usage, unix_time};

/// What we know of our own certificate when a server has refused it. Times are epoch seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnCertificateState {
    /// Why a server that trusts the same roots would refuse it, by our clock.
    pub fault: Option<Fault>,
    /// Its first and its last second.
    pub validity: Option<(u64, u64)>,
    /// Our clock.
    pub now: u64,
    /// The server's clock, where the server could be asked.
    pub server_clock: Option<u64>,
}

/// Our own certificate and those above it.
pub struct OwnChain {
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The roots we trust.
    pub(crate) paths: PathVerifier,
    /// Its first and its last second.
    pub(crate) validity: (u64, u64),
}

impl OwnChain {
    /// Why a server that trusts the same roots would refuse it. Revocation is not judged: the server
    /// has the newer CRLs.
    pub fn fault(&self, now: u64) -> Option<Fault> {
        let (leaf, above) = self.chain.split_first()?;
        let judged = self.paths.judge(leaf, above, unix_time(now), Usage::Client);
        judged.err()
    }

    /// All that can be seen of it from here.
    pub fn state(&self, now: u64) -> OwnCertificateState {
        OwnCertificateState {
            fault: self.fault(now),
            validity: Some(self.validity),
            now,
            server_clock: None,
        }
    }
}
