//! Which servers we speak to: those the CA vouches for under the host's name and in a server's
//! role.

use std::fmt;
use std::sync::Arc;

use crate::anchors::Anchors;
use crate::crl::Crl;
use crate::identity::Leaf;
use crate::path::{PathVerifier, RevocationPolicy, Usage};
use lizmon_protocol::name::{Role, SpiffeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

/// Why the identity in a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerIdentityError {
    /// It has no valid identity.
    #[error(transparent)]
    NoIdentity(#[from] crate::identity::IdentityError),
    /// It was made for the other side of a connection.
    #[error("it is {0}'s: a server's role is receiver or ca")]
    NotServer(Box<SpiffeId>),
    /// It was made for another kind of server.
    #[error("it is {0}'s: only the role ca enrols and renews")]
    NotCa(Box<SpiffeId>),
}

/// The chain that a server shows, and the host name that it must be valid for.
pub(crate) struct ServerChain<'a> {
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    server_name: &'a ServerName<'a>,
}

/// What a server must prove besides that it holds the key of its certificate.
pub(crate) trait ServerCheck: fmt::Debug + Send + Sync {
    fn check(&self, chain: &ServerChain<'_>, now: UnixTime) -> Result<(), rustls::Error>;
}

/// WebPKI's verification (chain, time, serverAuth, host name), and the role: a stolen key of a node
/// cannot pose as a receiver, whatever names its certificate has.
#[derive(Debug)]
pub(crate) struct ServerRoleCheck {
    paths: PathVerifier,
    servers: ServerRoles,
}

/// No check: every server is accepted.
#[derive(Debug)]
pub(crate) struct AnyServer;

/// Verifies the signatures of the handshake, as TLS requires, and the rest by `C`.
#[derive(Debug)]
pub(crate) struct ServerVerifier<C> {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) check: C,
}

/// The server roles that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerRoles {
    /// Every role of servers.
    Any,
    /// The role `ca`, which issues certificates, and no receiver.
    CaOnly,
}

impl ServerRoleCheck {
    pub(crate) fn new(
        anchors: &Anchors,
        servers: ServerRoles,
        crls: Vec<Crl>,
        provider: &CryptoProvider,
    ) -> Self {
        // A missing or old CRL does not stop a client from reporting: the other CRLs still apply.
        let paths = PathVerifier::new(
            &anchors.roots,
            anchors.intermediates.clone(),
            crls,
            RevocationPolicy::CrlOptional,
            provider.signature_verification_algorithms.all,
        );
        Self { paths, servers }
    }
}

impl ServerCheck for ServerRoleCheck {
    fn check(&self, chain: &ServerChain<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        let end_entity = chain.end_entity;
        // The same verification as a server's of its clients.
        self.paths
            .verify(end_entity, chain.intermediates, now, Usage::Server)
            .map_err(kept)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, chain.server_name)?;
        check_role(end_entity, self.servers).map_err(kept)?;
        Ok(())
    }
}

impl ServerCheck for AnyServer {
    fn check(&self, _chain: &ServerChain<'_>, _now: UnixTime) -> Result<(), rustls::Error> {
        Ok(())
    }
}

impl<C: ServerCheck> ServerCertVerifier for ServerVerifier<C> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = ServerChain {
            end_entity,
            intermediates,
            server_name,
        };
        self.check.check(&chain, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Keeps the reason whole.
fn kept(error: impl std::error::Error + Send + Sync + 'static) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(error)))
}

fn check_role(end_entity: &[u8], servers: ServerRoles) -> Result<(), ServerIdentityError> {
    let id = Leaf::read(end_entity)?.spiffe_id;
    if !id.role.is_server() {
        Err(ServerIdentityError::NotServer(Box::new(id)))
    } else if servers == ServerRoles::CaOnly && id.role != Role::Ca {
        Err(ServerIdentityError::NotCa(Box::new(id)))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Pki;

    fn verify(
        check: &ServerRoleCheck,
        host: &str,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let chain = ServerChain {
            end_entity,
            intermediates,
            server_name: &ServerName::try_from(host.to_owned()).unwrap(),
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(Pki::NOW));
        check.check(&chain, now)
    }

    #[test]
    fn roles() {
        let pki = Pki::new("root");
        let cases: &[(&[&str], Result<(), &str>)] = &[
            (&["spiffe://lizmon.internal/receiver/r1"], Ok(())),
            (&["spiffe://lizmon.internal/ca/ca1"], Ok(())),
            (&["spiffe://lizmon.internal/node/web1"], Err("NotServer")),
            (&["spiffe://lizmon.internal/reader/r1"], Err("NotServer")),
            (&[], Err("UriCount(0)")),
            (
                &[
                    "spiffe://lizmon.internal/receiver/r1",
                    "spiffe://lizmon.internal/node/web1",
                ],
                Err("UriCount(2)"),
            ),
            (&["https://localhost/"], Err("Uri(SpiffeId")),
        ];
        let roots = pki.roots();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let all = ServerRoleCheck::new(&roots, ServerRoles::Any, vec![], &provider);
        let ca_alone = ServerRoleCheck::new(&roots, ServerRoles::CaOnly, vec![], &provider);
        for (uris, expected) in cases {
            let leaf = pki.issue(uris);
            let ask =
                |check: &ServerRoleCheck| verify(check, "localhost", leaf.certificate.der(), &[]);
            let is_ca = *uris == ["spiffe://lizmon.internal/ca/ca1"];
            assert_eq!(ask(&ca_alone).is_ok(), is_ca, "{uris:?}");
            let got = ask(&all);
            match (got, expected) {
                (Ok(_), Ok(())) => (),
                (Err(error), Err(part)) => {
                    let text = format!("{error:?}");
                    assert!(text.contains(part), "{uris:?}: {text}");
                }
                (got, expected) => panic!("{uris:?}: got {got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_role_does_not_stand_in_for_the_name_or_the_chain() {
        let pki = Pki::new("root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let leaf = pki.issue(&["spiffe://lizmon.internal/receiver/r1"]);
        let check = |roots: Anchors, host: &str, expected: &str| {
            let check = ServerRoleCheck::new(&roots, ServerRoles::Any, vec![], &provider);
            let error = verify(&check, host, leaf.certificate.der(), &[]).unwrap_err();
            assert!(format!("{error:?}").contains(expected), "{error:?}");
        };
        check(pki.roots(), "other.example", "NotValidForName");
        check(Pki::new("other").roots(), "localhost", "MissingIssuer");
        check(Pki::new("root").roots(), "localhost", "BadSignature");
    }

    /// The story: with the issuing CA in the file of roots, which people call ca-chain.pem, its
    /// revocation was missed.
    #[test]
    fn an_issuing_ca_in_the_file_of_roots_can_be_revoked() {
        use rcgen::{
            BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa,
            Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
            date_time_ymd,
        };
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.serial_number = Some(SerialNumber::from(77_u64));
            (params, KeyPair::generate().unwrap())
        };
        let (root_params, root_key) = ca("root");
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let (params, key) = ca("issuing");
        let issuing = params.signed_by(&key, &root_issuer).unwrap();
        let pki = Pki::below(issuing.clone(), Issuer::new(params, key));
        let leaf = pki.issue(&["spiffe://lizmon.internal/receiver/r1"]);
        let crl = |number: &[u8], revoked: &[u64]| {
            let date = date_time_ymd(2026, 1, 1);
            let revoked = revoked.iter().map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: date,
                reason_code: None,
                invalidity_date: None,
            });
            let params = CertificateRevocationListParams {
                this_update: date,
                next_update: date_time_ymd(2026, 2, 1),
                crl_number: SerialNumber::from_slice(number),
                issuing_distribution_point: None,
                revoked_certs: revoked.collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&root_issuer).unwrap().pem().unwrap()
        };
        let anchors = issuing.pem() + &root.pem();
        let anchors = crate::anchors::read(anchors.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let cases: [(&str, Vec<String>, bool); 4] = [
            ("no CRL", vec![], true),
            ("nothing is revoked", vec![crl(&[1], &[])], true),
            ("the issuing CA is", vec![crl(&[1; 20], &[77])], false),
            (
                "by a CRL of a number that another one has as well",
                vec![crl(&[1], &[77]), crl(&[1], &[])],
                false,
            ),
        ];
        for (story, pems, good) in cases {
            let crls = crate::server_crls::ServerCrls::default();
            for pem in pems {
                assert!(crls.take(pem.as_bytes()).unwrap().is_new, "{story}");
            }
            let check = ServerRoleCheck::new(&anchors, ServerRoles::Any, crls.all(), &provider);
            let shown: [&[CertificateDer<'_>]; 2] = [&[], &[issuing.der().clone()]];
            for shown in shown {
                let judged = verify(&check, "localhost", leaf.certificate.der(), shown);
                assert_eq!(judged.is_ok(), good, "{story}: {judged:?}");
            }
        }
    }
}
