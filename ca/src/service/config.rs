//! How the service is configured.

use std::path::PathBuf;
use std::time::Duration;

use lizmon_mtls::TlsMin;
use lizmon_mtls::limits::Limits;
use lizmon_mtls::proxies::Network;
use lizmon_protocol::name::NodeName;

use super::rate_limits::RateLimits;
use crate::files::LeafFiles;
use crate::pki::{San, Unlock};

/// Longest time a request's body may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The configuration of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// The CA's folder.
    pub certs: PathBuf,
    /// How the issuing CA's key is unlocked.
    pub unlock: Unlock,
    /// The certificate that it shows.
    pub certificate: ServiceCertificate,
    /// Longest time a request's body may take.
    pub body_timeout: Duration,
    /// The oldest TLS version that it accepts.
    pub tls_min: TlsMin,
    /// Load balancers that send a PROXY protocol header.
    pub proxy_protocol: Vec<Network>,
    /// Limits of connections and handshakes.
    pub limits: Limits,
    /// Rate limits of enrolment and renewal.
    pub rates: RateLimits,
}

impl Config {
    /// A configuration with every default.
    pub fn new(certs: PathBuf, certificate: ServiceCertificate) -> Self {
        Self {
            certs,
            unlock: Unlock::default(),
            certificate,
            body_timeout: BODY_TIMEOUT,
            tls_min: TlsMin::default(),
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            rates: RateLimits::default(),
        }
    }
}

/// The certificate that the service shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceCertificate {
    /// Files that another program renews.
    Provided(LeafFiles),
    /// Issued and renewed by the service itself.
    Issued {
        /// Its name: `certs/cas/NAME.crt`.
        name: NodeName,
        /// The names by which clients reach it.
        sans: Vec<San>,
    },
}
