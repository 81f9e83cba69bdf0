//! Who may do what. Pure: identity, claims and action in, a permit or an error out.
//!
//! A [`Permit`] is made here alone; a function that takes one as an argument cannot be called
//! without authorization.

mod host_scope;

use std::collections::BTreeSet;
use std::sync::Arc;

use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{NodeName, Role, SpiffeId, Tag, TagFilter};
use lizmon_protocol::token::{Claims, Scope, Scopes};

pub use self::host_scope::HostScope;
use crate::token;

/// Send samples of a host: the one that a token names, or one that a gateway may write for.
#[derive(Debug)]
pub struct Ingest {
    claims: Arc<Claims>,
    /// By a gateway.
    for_host: Option<NodeName>,
}
/// Read this host's summaries and delivery.
#[derive(Debug)]
pub struct ReadHost {
    host: NodeName,
}
/// Read series of the hosts that the caller may read.
#[derive(Debug)]
pub struct ReadSeries {
    hosts: ReadableHosts,
}
#[derive(Debug)]
enum ReadableHosts {
    /// A reader's.
    Of(HostScope),
    /// A node's own.
    Own(NodeName),
}
/// List the hosts that the caller may read.
#[derive(Debug)]
pub struct ListHosts {
    scope: HostScope,
}
/// List the certificates that were seen.
#[derive(Debug)]
pub struct ListCertificates;
/// Accept that records of a host are lost.
#[derive(Debug)]
pub struct AcknowledgeMissing;
/// Change what the receiver trusts.
#[derive(Debug)]
pub struct Administer;
/// Silence the alarms of a host.
#[derive(Debug)]
pub struct SilenceHost {
    host: Option<NodeName>,
    operator: SpiffeId,
}
/// Send a test message by a channel.
#[derive(Debug)]
pub struct TestChannel;
/// Read the receiver's metrics, of the hosts that the caller may read.
#[derive(Debug)]
pub struct ReadMetrics {
    scope: HostScope,
}
/// See the web page, with the hosts that the caller may read.
#[derive(Debug)]
pub struct ViewPage {
    scope: HostScope,
    own: SpiffeId,
}

/// Why a caller is not authorized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    /// The token belongs to another certificate.
    #[error("the token belongs to another certificate")]
    CertificateMismatch,
    /// The token lacks a scope.
    #[error("this needs the scope {}", .0.as_str())]
    InsufficientScope(Scope),
    /// The token is another host's.
    #[error("the token is for `{subject}` alone")]
    WrongHost {
        /// Its own host.
        subject: NodeName,
    },
    /// The gateway's certificate does not name the host.
    #[error("the certificate of the gateway `{gateway}` does not name this host")]
    OutsideGateway {
        /// Its name.
        gateway: NodeName,
    },
    /// The certificate is limited to other hosts.
    #[error("the certificate is limited to some hosts, and this is not one of them")]
    OutsideHostScope,
    /// The request names no host that could exist.
    #[error("no host can have this name")]
    NoSuchHost,
}

/// The proof that a caller may do `A`.
#[derive(Debug)]
pub struct Permit<A> {
    action: A,
    certificate_end: u64,
}

impl<A> Permit<A> {
    /// When the caller's certificate ends: epoch seconds.
    pub fn certificate_end(&self) -> u64 {
        self.certificate_end
    }
}

impl Permit<Ingest> {
    /// The host whose samples may be sent: the caller's own, or one that a gateway may write for.
    pub fn host(&self) -> &NodeName {
        let for_host = self.action.for_host.as_ref();
        for_host.unwrap_or(&self.action.claims.sub)
    }

    /// The gateway that sends them, if it is not the host itself.
    pub fn gateway(&self) -> Option<&NodeName> {
        let claims = &self.action.claims;
        self.action.for_host.as_ref().map(|_| &claims.sub)
    }
}

impl Permit<ReadHost> {
    /// The host that may be read.
    pub fn host(&self) -> &NodeName {
        &self.action.host
    }
}

impl Permit<ListHosts> {
    /// Whether the caller may know of a host with these tags.
    pub fn sees(&self, host: &str, tags: &BTreeSet<Tag>) -> bool {
        self.action.scope.includes(host, tags)
    }

    /// Of these hosts those with the wanted tags.
    pub fn only(mut self, wanted: TagFilter) -> Self {
        self.action.scope = self.action.scope.only(wanted);
        self
    }

    /// The hosts.
    pub fn scope(&self) -> &HostScope {
        &self.action.scope
    }
}

impl Permit<ReadSeries> {
    /// Whether series of a host with these tags may be read.
    pub fn sees(&self, host: &str, tags: &BTreeSet<Tag>) -> bool {
        match &self.action.hosts {
            ReadableHosts::Of(scope) => scope.includes(host, tags),
            ReadableHosts::Own(own) => own.as_str() == host,
        }
    }

    /// The host, if there is one alone whose series may be read.
    pub fn only_host(&self) -> Option<&str> {
        match &self.action.hosts {
            ReadableHosts::Of(_) => None,
            ReadableHosts::Own(own) => Some(own.as_str()),
        }
    }
}

impl Permit<ReadMetrics> {
    /// Of these hosts those with the wanted tags.
    pub fn only(mut self, wanted: TagFilter) -> Self {
        self.action.scope = self.action.scope.only(wanted);
        self
    }

    /// The hosts.
    pub fn scope(&self) -> &HostScope {
        &self.action.scope
    }
}

impl Permit<SilenceHost> {
    /// The host whose alarms may be silenced; none if no host can have the name.
    pub fn host(&self) -> Option<&NodeName> {
        self.action.host.as_ref()
    }

    /// Who silences them.
    pub fn operator(&self) -> &SpiffeId {
        &self.action.operator
    }
}

impl Permit<ViewPage> {
    /// Whether the page shows a host with these tags.
    pub fn shows(&self, host: &str, tags: &BTreeSet<Tag>) -> bool {
        self.action.scope.includes(host, tags)
    }

    /// Whether there are hosts that it does not show.
    pub fn is_limited(&self) -> bool {
        self.action.scope.is_limited()
    }

    /// The hosts that it shows.
    pub fn scope(&self) -> &HostScope {
        &self.action.scope
    }

    /// The right to read a host that the page shows.
    pub fn read_host(&self, host: &NodeName, tags: &BTreeSet<Tag>) -> Option<Permit<ReadHost>> {
        let permit = || Permit {
            action: ReadHost { host: host.clone() },
            certificate_end: self.certificate_end,
        };
        self.shows(host.as_str(), tags).then(permit)
    }

    /// Whose page it is.
    pub fn viewer(&self) -> &SpiffeId {
        &self.action.own
    }
}

/// May the holder of this certificate read the metrics? No token is asked for, because scrapers
/// have none.
pub fn read_metrics(holder: &Identity) -> Result<Permit<ReadMetrics>, AuthorizeError> {
    if !Scopes::of(holder.spiffe_id.role).contains(Scope::MetricsRead) {
        return Err(AuthorizeError::InsufficientScope(Scope::MetricsRead));
    }
    let scope = HostScope::of(holder);
    Ok(Permit {
        action: ReadMetrics { scope },
        certificate_end: holder.not_after,
    })
}

/// May the holder of this certificate see the page? No token is asked for, because browsers have
/// none.
pub fn view_page(holder: &Identity) -> Result<Permit<ViewPage>, AuthorizeError> {
    if !Scopes::of(holder.spiffe_id.role).contains(Scope::MetricsRead) {
        return Err(AuthorizeError::InsufficientScope(Scope::MetricsRead));
    }
    let scope = HostScope::of(holder);
    let own = holder.spiffe_id.clone();
    Ok(Permit {
        action: ViewPage { scope, own },
        certificate_end: holder.not_after,
    })
}

/// A client whose certificate is trusted, with a valid token that is bound to that certificate.
#[derive(Debug)]
pub struct Caller<'a> {
    identity: &'a Identity,
    claims: &'a Arc<Claims>,
    scopes: Scopes,
}

impl<'a> Caller<'a> {
    /// Joins certificate and token, if they belong together.
    pub fn new(identity: &'a Identity, claims: &'a Arc<Claims>) -> Result<Self, AuthorizeError> {
        if !token::is_bound_to(claims, &identity.thumbprint)
            || claims.client_id != identity.spiffe_id
        {
            return Err(AuthorizeError::CertificateMismatch);
        }
        // Whatever a token says, it gives no more than its holder's role may have.
        let allowed = Scopes::of(identity.spiffe_id.role);
        let scopes = claims
            .scope
            .iter()
            .filter(|scope| allowed.contains(*scope))
            .collect();
        Ok(Self {
            identity,
            claims,
            scopes,
        })
    }

    /// May the caller send samples at all? Of which host is another question.
    pub fn write(&self) -> Result<(), AuthorizeError> {
        self.check_scope(Scope::MetricsWrite)
    }

    /// May the caller send samples of this host? `None` is a name that no host can have. `tags_of`
    /// gives the tags that the certificate of a host had which it reported with last.
    pub fn ingest(
        &self,
        host: Option<&NodeName>,
        tags_of: impl FnOnce(&NodeName) -> BTreeSet<Tag>,
    ) -> Result<Permit<Ingest>, AuthorizeError> {
        if self.identity.spiffe_id.role != Role::Gateway {
            return self.report(host);
        }
        self.check_scope(Scope::MetricsWrite)?;
        let scope = HostScope::of(self.identity);
        // One without a pattern would include every host, and may write for none.
        let names_hosts = !self.identity.attributes.hosts.is_empty();
        match host {
            Some(host) if names_hosts && scope.includes(host.as_str(), &tags_of(host)) => Ok(self
                .permit(Ingest {
                    claims: self.claims.clone(),
                    for_host: Some(host.clone()),
                })),
            _ => Err(AuthorizeError::OutsideGateway {
                gateway: self.claims.sub.clone(),
            }),
        }
    }

    /// Is the caller this host, and may send what is known of it? `None` is a name that no host can
    /// have.
    pub fn report(&self, host: Option<&NodeName>) -> Result<Permit<Ingest>, AuthorizeError> {
        self.check_scope(Scope::MetricsWrite)?;
        let is_node = self.identity.spiffe_id.role == Role::Node;
        if !is_node || host != Some(&self.claims.sub) {
            return Err(self.wrong_host());
        }
        Ok(self.permit(Ingest {
            claims: self.claims.clone(),
            for_host: None,
        }))
    }

    /// May the caller read this host? `None` is a name that no host can have. `tags_of` gives the
    /// tags that the certificate of a host had which it reported with last. Whether there is a host
    /// outside its scope is not told to a reader.
    pub fn read_host(
        &self,
        host: Option<&NodeName>,
        tags_of: impl FnOnce(&NodeName) -> BTreeSet<Tag>,
    ) -> Result<Permit<ReadHost>, AuthorizeError> {
        let is_node = self.identity.spiffe_id.role == Role::Node;
        match self.check_scope(Scope::MetricsRead) {
            Ok(()) => (),
            Err(_) if is_node && host == Some(&self.claims.sub) => (),
            Err(_) if is_node => return Err(self.wrong_host()),
            Err(error) => return Err(error),
        }
        let scope = HostScope::of(self.identity);
        let host = match host {
            Some(host) if scope.is_limited() && !scope.includes(host.as_str(), &tags_of(host)) => {
                return Err(AuthorizeError::OutsideHostScope);
            }
            None if scope.is_limited() => return Err(AuthorizeError::OutsideHostScope),
            host => host.ok_or(AuthorizeError::NoSuchHost)?.clone(),
        };
        Ok(self.permit(ReadHost { host }))
    }

    /// May the caller list the hosts that it may read?
    pub fn list_hosts(&self) -> Result<Permit<ListHosts>, AuthorizeError> {
        self.check_scope(Scope::MetricsRead)?;
        let scope = HostScope::of(self.identity);
        Ok(self.permit(ListHosts { scope }))
    }

    /// May the caller read series? A node its own alone: of others it learns nothing.
    pub fn read_series(&self) -> Result<Permit<ReadSeries>, AuthorizeError> {
        let hosts = match self.check_scope(Scope::MetricsRead) {
            Ok(()) => ReadableHosts::Of(HostScope::of(self.identity)),
            Err(_) if self.identity.spiffe_id.role == Role::Node => {
                ReadableHosts::Own(self.claims.sub.clone())
            }
            Err(error) => return Err(error),
        };
        Ok(self.permit(ReadSeries { hosts }))
    }

    /// May the caller change what the receiver trusts?
    pub fn administer(&self) -> Result<Permit<Administer>, AuthorizeError> {
        self.check_scope(Scope::Admin)?;
        Ok(self.permit(Administer))
    }

    /// May the caller learn which certificates were seen?
    pub fn list_certificates(&self) -> Result<Permit<ListCertificates>, AuthorizeError> {
        self.check_scope(Scope::Admin)?;
        Ok(self.permit(ListCertificates))
    }

    /// May the caller accept that records are lost, of any host?
    pub fn acknowledge(&self) -> Result<Permit<AcknowledgeMissing>, AuthorizeError> {
        self.check_scope(Scope::Admin)?;
        Ok(self.permit(AcknowledgeMissing))
    }

    /// May the caller silence the alarms of this host? `None` is a name that no host can have.
    pub fn silence(&self, host: Option<&NodeName>) -> Result<Permit<SilenceHost>, AuthorizeError> {
        self.check_scope(Scope::Admin)?;
        Ok(self.permit(SilenceHost {
            host: host.cloned(),
            operator: self.identity.spiffe_id.clone(),
        }))
    }

    /// May the caller send test messages?
    pub fn test_channel(&self) -> Result<Permit<TestChannel>, AuthorizeError> {
        self.check_scope(Scope::Admin)?;
        Ok(self.permit(TestChannel))
    }

    fn permit<A>(&self, action: A) -> Permit<A> {
        Permit {
            action,
            certificate_end: self.identity.not_after,
        }
    }

    fn check_scope(&self, scope: Scope) -> Result<(), AuthorizeError> {
        match self.scopes.contains(scope) {
            true => Ok(()),
            false => Err(AuthorizeError::InsufficientScope(scope)),
        }
    }

    fn wrong_host(&self) -> AuthorizeError {
        AuthorizeError::WrongHost {
            subject: self.claims.sub.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
