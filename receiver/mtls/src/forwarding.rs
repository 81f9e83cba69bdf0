//! Requests that a trusted proxy passes on: the client's certificate is in a header (RFC 9440), its
//! address in another.
//!
//! A proxy's connection carries requests of many clients, so each request gets a [`Connection`] of
//! its own: the client's certificate, verified as in a handshake, the client's limits and address.
//! Whoever is no trusted proxy and sends such a header is refused, not ignored: it is an attempt to
//! be somebody else, or a proxy whose clients would lose their identity unnoticed.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName, HeaderValue};
use lizmon_protocol::name::{Role, SpiffeId};
use quick_cache::sync::Cache;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Clock;
use crate::client_quota::ClientQuotas;
use crate::connection::{Connection, Peer};
use crate::identity::Identity;
use crate::limits::Limits;
use crate::proxies::ProxyRole;
use crate::refusal::PeerRefusal;
use crate::trust::{Trust, TrustReader};

/// RFC 9440 section 2.2.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// RFC 9440 section 2.3.
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
/// Its last address is what the proxy itself has seen.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The maximum number of authorities in `Client-Cert-Chain`. No path of ours has more than one
/// between leaf and root.
const CHAIN_CERTIFICATES_MAX: usize = 8;
/// The maximum number of verified certificates that are kept, of some 3 KB each.
const VERIFIED_MAX: usize = 16_384;

/// Why the headers that name a client are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardingError {
    /// The peer has a certificate of the role `proxy`, and no proxy is trusted here.
    #[error(
        "the connection's certificate is that of a proxy, {0}: start the receiver with --trusted-proxy to serve clients through it"
    )]
    ProxiesRefused(SpiffeId),
    /// The proxy's own certificate is not valid any more.
    #[error("the proxy's certificate: {0}")]
    ProxyCertificate(PeerRefusal),
    /// The peer is no proxy.
    #[error("{0} is taken from nobody but a proxy with a certificate from `lizctl issue-proxy`")]
    NotAProxy(&'static str),
    /// The header occurs more than once.
    #[error("there is more than one {0} header")]
    Repeated(&'static str),
    /// The header cannot be read.
    #[error("{0} is not as {1} has it")]
    Malformed(&'static str, &'static str),
    /// There is a chain without a certificate.
    #[error("there is a Client-Cert-Chain header without Client-Cert")]
    ChainAlone,
}

impl ForwardingError {
    /// Whether the peer is at fault, and not the form of what it sent.
    pub fn is_about_the_peer(&self) -> bool {
        matches!(
            self,
            Self::ProxiesRefused(_) | Self::ProxyCertificate(_) | Self::NotAProxy(_)
        )
    }
}

/// Finds the client of each request.
pub(crate) struct Forwarding {
    pub(crate) role: ProxyRole,
    pub(crate) trust: TrustReader,
    pub(crate) quotas: Arc<ClientQuotas>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    /// By the bytes of the headers.
    verified: Cache<[u8; 32], Arc<Peer>>,
}

impl std::fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Forwarding({:?})", self.role)
    }
}

impl Forwarding {
    pub(crate) fn new(
        role: ProxyRole,
        trust: TrustReader,
        quotas: Arc<ClientQuotas>,
        limits: Limits,
        clock: Clock,
    ) -> Self {
        Self {
            role,
            trust,
            quotas,
            limits,
            clock,
            verified: Cache::new(VERIFIED_MAX),
        }
    }

    /// The connection that a request belongs to: that on which it came, or one of the client that
    /// a trusted proxy names.
    pub(crate) fn client_of(
        &self,
        connection: &Arc<Connection>,
        headers: &HeaderMap,
    ) -> Result<Arc<Connection>, ForwardingError> {
        let proxy = connection
            .shown_identity()
            .filter(|peer| peer.spiffe_id.role == Role::Proxy && self.role != ProxyRole::Client);
        let Some(proxy) = proxy else {
            let named = [CLIENT_CERT, CLIENT_CERT_CHAIN]
                .into_iter()
                .find(|name| headers.contains_key(name));
            return match named {
                Some(name) => Err(ForwardingError::NotAProxy(shown_name(&name))),
                None => Ok(connection.clone()),
            };
        };
        if self.role == ProxyRole::Refused {
            return Err(ForwardingError::ProxiesRefused(proxy.spiffe_id.clone()));
        }
        let (trust, now) = (self.trust.current(), (self.clock)());
        if let Some(Err(refusal)) = connection.peer(&trust, now) {
            return Err(ForwardingError::ProxyCertificate(refusal));
        }
        let address = client_address(headers)?.unwrap_or(connection.address());
        let client = match self.certificate_holder(headers, &trust, now)? {
            None => Connection::anonymous(address),
            Some(Ok(peer)) => Connection::of_peer(address, peer),
            Some(Err(refusal)) => Connection::refused(address, refusal),
        };
        Ok(Arc::new(client.through(connection.clone())))
    }

    /// The holder of the certificate in the headers, if there is one.
    fn certificate_holder(
        &self,
        headers: &HeaderMap,
        trust: &Trust,
        now: u64,
    ) -> Result<Option<Result<Arc<Peer>, PeerRefusal>>, ForwardingError> {
        let leaf = single(headers, &CLIENT_CERT)?;
        let chain = single(headers, &CLIENT_CERT_CHAIN)?;
        let Some(leaf) = leaf else {
            return match chain {
                Some(_) => Err(ForwardingError::ChainAlone),
                None => Ok(None),
            };
        };
        let key = cache_key(leaf, chain);
        if let Some(peer) = self.verified.get(&key) {
            // Handlers verify it once more after each reload of the trust, as on any connection.
            return Ok(Some(Ok(peer)));
        }
        let leaf = certificate(leaf)?;
        let chain = chain.map(authorities).transpose()?.unwrap_or_default();
        let verified = self.verify(leaf, chain, trust, now);
        if let Ok(peer) = &verified {
            self.verified.insert(key, peer.clone());
        }
        Ok(Some(verified))
    }

    /// As a handshake would.
    fn verify(
        &self,
        leaf: CertificateDer<'static>,
        mut above: Vec<CertificateDer<'static>>,
        trust: &Trust,
        now: u64,
    ) -> Result<Arc<Peer>, PeerRefusal> {
        if above.is_empty() {
            above = trust.known_issuers(&leaf);
        }
        let mut chain = vec![leaf];
        chain.append(&mut above);
        trust.verify(&chain, now)?;
        let identity = Identity::from_der(&chain[0]).map_err(PeerRefusal::NoIdentity)?;
        let quota = self.quotas.of(&identity.spiffe_id, &self.limits);
        let generation = trust.generation();
        Ok(Arc::new(Peer::new(identity, chain, quota, generation)))
    }
}

/// As RFC 9440 writes it.
fn shown_name(name: &HeaderName) -> &'static str {
    match name {
        name if name == CLIENT_CERT => "Client-Cert",
        name if name == CLIENT_CERT_CHAIN => "Client-Cert-Chain",
        _ => "X-Forwarded-For",
    }
}

/// The one value of a header.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ForwardingError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        Some(_) => Err(ForwardingError::Repeated(shown_name(name))),
        None => Ok(value),
    }
}

fn cache_key(leaf: &HeaderValue, chain: Option<&HeaderValue>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(leaf.as_bytes());
    if let Some(chain) = chain {
        // No header has a line feed.
        context.update(b"\n");
        context.update(chain.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

const BYTE_SEQUENCE: &str =
    "RFC 9440 section 2.1: the DER of one certificate in base64 between colons";

/// One certificate: RFC 9440 section 2.2.
fn certificate(value: &HeaderValue) -> Result<CertificateDer<'static>, ForwardingError> {
    let malformed = || ForwardingError::Malformed("Client-Cert", BYTE_SEQUENCE);
    let item = sfv::Parser::new(value.as_bytes())
        .parse::<sfv::Item>()
        .map_err(|_| malformed())?;
    match item.bare_item {
        sfv::BareItem::ByteSequence(der) if item.params.is_empty() => {
            of_der(der).ok_or_else(malformed)
        }
        _ => Err(malformed()),
    }
}

/// The authorities that issued it, nearest first: RFC 9440 section 2.3.
fn authorities(value: &HeaderValue) -> Result<Vec<CertificateDer<'static>>, ForwardingError> {
    let malformed = || ForwardingError::Malformed("Client-Cert-Chain", BYTE_SEQUENCE);
    let list = sfv::Parser::new(value.as_bytes())
        .parse::<sfv::List>()
        .map_err(|_| malformed())?;
    if list.len() > CHAIN_CERTIFICATES_MAX {
        return Err(malformed());
    }
    let each = list.into_iter().map(|entry| match entry {
        sfv::ListEntry::Item(item) => match item.bare_item {
            sfv::BareItem::ByteSequence(der) => of_der(der),
            _ => None,
        },
        sfv::ListEntry::InnerList(_) => None,
    });
    each.map(|der| der.ok_or_else(malformed)).collect()
}

fn of_der(der: Vec<u8>) -> Option<CertificateDer<'static>> {
    let (rest, _) = X509Certificate::from_der(&der).ok()?;
    rest.is_empty().then(|| CertificateDer::from(der))
}

/// The last address of `X-Forwarded-For`. What a client sent itself is before it.
fn client_address(headers: &HeaderMap) -> Result<Option<IpAddr>, ForwardingError> {
    let Some(value) = headers.get_all(X_FORWARDED_FOR).iter().next_back() else {
        return Ok(None);
    };
    let address = value
        .to_str()
        .ok()
        .and_then(|text| text.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    let malformed =
        ForwardingError::Malformed("X-Forwarded-For", "a list of addresses, the client's last");
    address
        .map(|address| Some(address.to_canonical()))
        .ok_or(malformed)
}

#[cfg(test)]
mod tests;
