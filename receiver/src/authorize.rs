//! Who may do what. Pure: identity, claims and action in, a permit or a refusal out.
//!
//! A [`Permit`] is made here alone; whoever asks for one as an argument cannot forget to ask.

use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{NodeName, Role};
use lizmon_protocol::problem::Code;
use lizmon_protocol::token::{Claims, Scope, Scopes};

use crate::problem::Rejection;
use crate::token;

/// Send samples of a host.
#[derive(Debug)]
pub struct Ingest;
/// Read one host's summaries and delivery.
#[derive(Debug)]
pub struct ReadHost;
/// List all hosts.
#[derive(Debug)]
pub struct ListHosts;

/// List the certificates that were seen.
#[derive(Debug)]
pub struct ListCertificates;
/// Settle what is missing of a host.
#[derive(Debug)]
pub struct Settle;
/// Change what the receiver trusts.
#[derive(Debug)]
pub struct Administer;
/// Read what the receiver says of itself.
#[derive(Debug)]
pub struct ReadMetrics;

/// The proof that somebody may do `A`, about [`Permit::host`] if `A` is about one.
#[derive(Debug)]
pub struct Permit<A> {
    host: Option<NodeName>,
    certificate_end: u64,
    _action: std::marker::PhantomData<A>,
}

impl<A> Permit<A> {
    fn new(caller: &Caller<'_>, host: Option<NodeName>) -> Self {
        Self {
            host,
            certificate_end: caller.identity.not_after,
            _action: std::marker::PhantomData,
        }
    }

    /// When the caller's certificate ends: epoch seconds.
    pub fn certificate_end(&self) -> u64 {
        self.certificate_end
    }
}

impl Permit<Ingest> {
    /// The host whose samples may be sent: the caller's own.
    pub fn into_host(self) -> Option<NodeName> {
        self.host
    }
}

impl Permit<ReadHost> {
    /// The host that may be read.
    pub fn host(&self) -> Option<&NodeName> {
        self.host.as_ref()
    }
}

impl Permit<Settle> {
    /// The host whose missing numbers may be settled.
    pub fn host(&self) -> Option<&NodeName> {
        self.host.as_ref()
    }
}

/// May the holder of this certificate read the metrics? No token is asked for: those who scrape have none.
pub fn read_metrics(holder: &Identity) -> Result<Permit<ReadMetrics>, Rejection> {
    if !Scopes::of(holder.spiffe_id.role).contains(Scope::MetricsRead) {
        return Err(Rejection::insufficient_scope(Scope::MetricsRead));
    }
    Ok(Permit {
        host: None,
        certificate_end: holder.not_after,
        _action: std::marker::PhantomData,
    })
}

/// Somebody whose certificate is trusted, whose token is good, and whose token belongs to that certificate.
#[derive(Debug)]
pub struct Caller<'a> {
    identity: &'a Identity,
    claims: &'a Claims,
    scopes: Scopes,
}

impl<'a> Caller<'a> {
    /// Joins certificate and token, if they belong together.
    pub fn new(identity: &'a Identity, claims: &'a Claims) -> Result<Self, Rejection> {
        if !token::is_bound_to(claims, &identity.thumbprint)
            || claims.client_id != identity.spiffe_id
        {
            return Err(Code::CertificateMismatch.into());
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

    /// May the caller send samples of the host that the path names?
    pub fn ingest(&self, path_host: &str) -> Result<Permit<Ingest>, Rejection> {
        if !self.scopes.contains(Scope::MetricsWrite) {
            return Err(Rejection::insufficient_scope(Scope::MetricsWrite));
        }
        if self.claims.sub.as_str() != path_host {
            return Err(self.wrong_host());
        }
        Ok(Permit::new(self, Some(self.claims.sub.clone())))
    }

    /// May the caller read the host that the path names?
    pub fn read_host(&self, path_host: &str) -> Result<Permit<ReadHost>, Rejection> {
        let is_reader = self.scopes.contains(Scope::MetricsRead);
        let is_node = self.identity.spiffe_id.role == Role::Node;
        if is_reader || (is_node && self.claims.sub.as_str() == path_host) {
            return Ok(Permit::new(self, path_host.parse().ok()));
        }
        Err(if is_node {
            self.wrong_host()
        } else {
            Rejection::insufficient_scope(Scope::MetricsRead)
        })
    }

    /// May the caller list all hosts?
    pub fn list_hosts(&self) -> Result<Permit<ListHosts>, Rejection> {
        if self.scopes.contains(Scope::MetricsRead) {
            return Ok(Permit::new(self, None));
        }
        Err(Rejection::insufficient_scope(Scope::MetricsRead))
    }

    /// May the caller change what the receiver trusts?
    pub fn administer(&self) -> Result<Permit<Administer>, Rejection> {
        if self.scopes.contains(Scope::Admin) {
            return Ok(Permit::new(self, None));
        }
        Err(Rejection::insufficient_scope(Scope::Admin))
    }

    /// May the caller learn which certificates were seen?
    pub fn list_certificates(&self) -> Result<Permit<ListCertificates>, Rejection> {
        if self.scopes.contains(Scope::Admin) {
            return Ok(Permit::new(self, None));
        }
        Err(Rejection::insufficient_scope(Scope::Admin))
    }

    /// May the caller settle what is missing of the host that the path names?
    pub fn acknowledge(&self, path_host: &str) -> Result<Permit<Settle>, Rejection> {
        if self.scopes.contains(Scope::Admin) {
            return Ok(Permit::new(self, path_host.parse().ok()));
        }
        Err(Rejection::insufficient_scope(Scope::Admin))
    }

    fn wrong_host(&self) -> Rejection {
        Rejection::from(Code::WrongHost)
            .with_detail(format!("the token speaks for `{}` alone", self.claims.sub))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use lizmon_protocol::token::Confirmation;

    fn identity(id: &str, thumbprint: u8) -> Identity {
        Identity {
            spiffe_id: id.parse().unwrap(),
            serial: Box::new([1]),
            thumbprint: [thumbprint; 32],
            not_before: 0,
            not_after: 9,
        }
    }

    fn claims(id: &str, thumbprint: u8, scope: &str) -> Claims {
        let client_id: lizmon_protocol::name::SpiffeId = id.parse().unwrap();
        Claims {
            iss: String::new(),
            aud: String::new(),
            sub: client_id.name.clone(),
            client_id,
            scope: scope.parse().unwrap(),
            iat: 0,
            nbf: 0,
            exp: 9,
            jti: String::new(),
            cnf: Confirmation {
                x5t_s256: URL_SAFE_NO_PAD.encode([thumbprint; 32]),
            },
        }
    }

    const NODE_A: &str = "spiffe://d/node/a";
    const NODE_B: &str = "spiffe://d/node/b";
    const READER_A: &str = "spiffe://d/reader/a";
    const OPERATOR: &str = "spiffe://d/operator/o";

    /// What `(ingest a, read a, read b, list, administer, list certificates)` come to.
    fn outcomes(certificate: &str, token: &str, scope: &str) -> Result<[Option<Code>; 6], Code> {
        let identity = identity(certificate, 1);
        let claims = claims(token, 1, scope);
        let caller = Caller::new(&identity, &claims).map_err(|rejection| rejection.code())?;
        Ok([
            caller.ingest("a").err().map(|r| r.code()),
            caller.read_host("a").err().map(|r| r.code()),
            caller.read_host("b").err().map(|r| r.code()),
            caller.list_hosts().err().map(|r| r.code()),
            caller.administer().err().map(|r| r.code()),
            caller.list_certificates().err().map(|r| r.code()),
        ])
    }

    #[test]
    fn every_role_may_do_its_own_and_nothing_else() {
        let (scope, wrong) = (Some(Code::InsufficientScope), Some(Code::WrongHost));
        let cases = [
            (
                NODE_A,
                NODE_A,
                "metrics:write",
                Ok([None, None, wrong, scope, scope, scope]),
            ),
            (
                NODE_B,
                NODE_B,
                "metrics:write",
                Ok([wrong, wrong, None, scope, scope, scope]),
            ),
            (
                READER_A,
                READER_A,
                "metrics:read",
                Ok([scope, None, None, None, scope, scope]),
            ),
            (
                OPERATOR,
                OPERATOR,
                "metrics:read admin",
                Ok([scope, None, None, None, None, None]),
            ),
            // A token that claims more than its holder's role.
            (
                NODE_A,
                NODE_A,
                "metrics:read admin",
                Ok([scope, None, wrong, scope, scope, scope]),
            ),
            (
                READER_A,
                READER_A,
                "metrics:write",
                Ok([scope, scope, scope, scope, scope, scope]),
            ),
            // A token of somebody else, though bound to this very certificate.
            (
                NODE_A,
                NODE_B,
                "metrics:write",
                Err(Code::CertificateMismatch),
            ),
            (
                NODE_A,
                READER_A,
                "metrics:read",
                Err(Code::CertificateMismatch),
            ),
            (
                READER_A,
                NODE_A,
                "metrics:write",
                Err(Code::CertificateMismatch),
            ),
        ];
        for (certificate, token, scopes, expected) in cases {
            assert_eq!(
                outcomes(certificate, token, scopes),
                expected,
                "{certificate} with {token} {scopes}"
            );
        }
    }

    #[test]
    fn a_token_of_another_certificate_is_refused() {
        let refused =
            Caller::new(&identity(NODE_A, 1), &claims(NODE_A, 2, "metrics:write")).unwrap_err();
        assert_eq!(refused.code(), Code::CertificateMismatch);
    }

    #[test]
    fn metrics_are_for_who_may_read_by_certificate_alone() {
        for (id, expected) in [
            (NODE_A, Some(Code::InsufficientScope)),
            (READER_A, None),
            (OPERATOR, None),
            ("spiffe://d/receiver/r", Some(Code::InsufficientScope)),
            ("spiffe://d/ca/c", Some(Code::InsufficientScope)),
        ] {
            let refused = read_metrics(&identity(id, 1)).err();
            assert_eq!(refused.map(|r| r.code()), expected, "{id}");
        }
    }

    #[test]
    fn names_are_compared_exactly() {
        let identity = identity(NODE_A, 1);
        let claims = claims(NODE_A, 1, "metrics:write");
        let caller = Caller::new(&identity, &claims).unwrap();
        for other in ["A", "a ", "a.", "", "a/b", "a%00", "../a"] {
            assert_eq!(
                caller.ingest(other).unwrap_err().code(),
                Code::WrongHost,
                "{other:?}"
            );
        }
    }
}
