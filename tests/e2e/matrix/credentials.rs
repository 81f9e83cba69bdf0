//! All kinds of credentials that a server may see, after some of them have expired or been revoked.

use std::collections::HashMap;
use std::time::Duration;

use lizmon_ca::pki::Reason;
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::Role;
use rcgen::{DnType, KeyPair, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig};
use time::OffsetDateTime;

use super::Outcome;
use super::requester::{Ask, Requester};
use crate::harness::forge::{Forger, self_signed, uri};
use crate::harness::raw::{Shown, tls_config_of};
use crate::harness::{Holder, World};

/// Files are checked every second; this is far more.
const SOON: Duration = Duration::from_secs(20);
/// Lifetime in seconds of the certificate that expires.
const BRIEF_SECS: u64 = 100;
/// How much later the requests are sent, in seconds.
const LATER_SECS: u64 = 150;
/// The identity of all invalid credentials: if they were accepted, they could do all that node a
/// can.
const NODE_A: &str = "spiffe://lizmon.internal/node/a";

/// The certificate of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Certificate {
    Absent,
    Of(Who),
    /// An expired one of node a.
    Ended(Way),
    /// A revoked one of node a.
    Revoked(Way),
    Flawed(Flaw),
}

/// A holder of a valid certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// The certificate that node a had before it renewed, still valid.
    NodeAFormer,
    NodeA,
    /// Signed with the issuing CA's key, but not issued by the CA.
    NodeAUnlisted,
    NodeB,
    /// Of the same name.
    ReaderA,
    /// Limited to other hosts than a.
    ReaderOfOthers,
    Operator,
    Receiver,
    Ca,
    Summarizer,
    Proxy,
    GatewayOfA,
    GatewayOfOthers,
}

/// How an expired or revoked certificate is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// On a connection that was opened before, HTTP/1.1.
    OpenHttp1,
    /// On a connection that was opened before, HTTP/2.
    OpenHttp2,
    /// By resuming an earlier session, TLS 1.3.
    Resumed,
    /// The same, TLS 1.2.
    ResumedTls12,
    New,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::OpenHttp1,
        Self::OpenHttp2,
        Self::Resumed,
        Self::ResumedTls12,
        Self::New,
    ];
}

/// Certificates that fail in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Flaw {
    NotYetValid,
    /// With subject, issuer and serial number of node a's, signed by another key.
    SameNamesAndSerial,
    /// Of a CA whose root and issuing CA have the names of ours.
    OtherRoot,
    SelfSigned,
    /// The issuing CA's own certificate, with its key.
    IssuingCa,
    SignedByLeaf,
    TwoNames,
    OtherTrustDomain,
    Malformed,
    /// Node a's, replayed by somebody without its key.
    WithoutItsKey,
}

impl Certificate {
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Absent];
        all.extend(Who::ALL.map(Self::Of));
        all.extend(Way::ALL.map(Self::Ended));
        all.extend(Way::ALL.map(Self::Revoked));
        all.extend(Flaw::ALL.map(Self::Flawed));
        all
    }

    /// Its holder, if it is valid.
    pub(super) fn who(self) -> Option<Who> {
        match self {
            Self::Of(who) => Some(who),
            _ => None,
        }
    }

    /// The identity in it.
    pub(super) fn id(self) -> String {
        self.who().map_or_else(|| NODE_A.to_owned(), |who| who.id())
    }

    /// The alert that ends the handshake; `None` if it succeeds.
    pub(super) fn alert(self) -> Option<AlertDescription> {
        Some(match self {
            Self::Absent | Self::Of(_) => return None,
            Self::Ended(Way::New) => AlertDescription::CertificateExpired,
            Self::Ended(_) => return None,
            // A revocation ends all sessions, so a full handshake is made and verified.
            Self::Revoked(Way::New | Way::Resumed | Way::ResumedTls12) => {
                AlertDescription::CertificateRevoked
            }
            Self::Revoked(_) => return None,
            Self::Flawed(flaw) => flaw.alert(),
        })
    }
}

impl Who {
    pub(super) const ALL: [Self; 13] = [
        Self::NodeAFormer,
        Self::NodeA,
        Self::NodeAUnlisted,
        Self::NodeB,
        Self::ReaderA,
        Self::ReaderOfOthers,
        Self::Operator,
        Self::Receiver,
        Self::Ca,
        Self::Summarizer,
        Self::Proxy,
        Self::GatewayOfA,
        Self::GatewayOfOthers,
    ];

    pub(super) fn role(self) -> Role {
        match self {
            Self::NodeAFormer | Self::NodeA | Self::NodeAUnlisted | Self::NodeB => Role::Node,
            Self::ReaderA | Self::ReaderOfOthers => Role::Reader,
            Self::Operator => Role::Operator,
            Self::Receiver => Role::Receiver,
            Self::Ca => Role::Ca,
            Self::Summarizer => Role::Summarizer,
            Self::Proxy => Role::Proxy,
            Self::GatewayOfA | Self::GatewayOfOthers => Role::Gateway,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NodeAFormer | Self::NodeA | Self::NodeAUnlisted | Self::ReaderA => "a",
            // A name gives it nothing.
            Self::GatewayOfOthers => "a",
            Self::NodeB => "b",
            Self::ReaderOfOthers => "limited",
            Self::Operator => "olga",
            Self::Receiver | Self::Ca | Self::Summarizer | Self::Proxy => "other",
            Self::GatewayOfA => "other",
        }
    }

    /// The hosts that it is limited to.
    fn limits(self) -> &'static [&'static str] {
        match self {
            Self::ReaderOfOthers | Self::GatewayOfOthers => &["b*", "other*"],
            Self::GatewayOfA => &["a"],
            _ => &[],
        }
    }

    pub(super) fn id(self) -> String {
        format!("spiffe://lizmon.internal/{}/{}", self.role(), self.name())
    }
}

impl Flaw {
    const ALL: [Self; 10] = [
        Self::NotYetValid,
        Self::SameNamesAndSerial,
        Self::OtherRoot,
        Self::SelfSigned,
        Self::IssuingCa,
        Self::SignedByLeaf,
        Self::TwoNames,
        Self::OtherTrustDomain,
        Self::Malformed,
        Self::WithoutItsKey,
    ];

    fn alert(self) -> AlertDescription {
        match self {
            // RFC 8446 section 6.2: it "has expired or is not currently valid".
            Self::NotYetValid => AlertDescription::CertificateExpired,
            Self::SameNamesAndSerial | Self::WithoutItsKey => AlertDescription::DecryptError,
            Self::OtherRoot | Self::SelfSigned => AlertDescription::UnknownCA,
            Self::IssuingCa | Self::SignedByLeaf => AlertDescription::CertificateUnknown,
            Self::TwoNames | Self::OtherTrustDomain => AlertDescription::AccessDenied,
            Self::Malformed => AlertDescription::BadCertificate,
        }
    }

    fn shown(self, world: &World, node_a: &Shown) -> Shown {
        let forger = Forger::with_issuing_key(world);
        let now = OffsetDateTime::from_unix_timestamp(world.clock.now() as i64).unwrap();
        match self {
            Self::NotYetValid => {
                forger.leaf(NODE_A, |leaf| leaf.not_before = now + time::Duration::HOUR)
            }
            Self::SameNamesAndSerial => Forger::with_same_names(world).leaf(NODE_A, |leaf| {
                leaf.distinguished_name = rcgen::DistinguishedName::new();
                leaf.distinguished_name.push(DnType::CommonName, "a");
                leaf.serial_number = Some(SerialNumber::from_slice(&identity(node_a).serial));
            }),
            Self::OtherRoot => World::without_receiver(|_| ()).node("a").shown(),
            Self::SelfSigned => self_signed(NODE_A),
            Self::IssuingCa => {
                let file = |name: &str| world.certs().join(name);
                Shown::from_files(&file("issuing.crt"), &file("issuing.key"))
            }
            Self::SignedByLeaf => Forger::with_leaf_key(node_a).leaf(NODE_A, |_| ()),
            Self::TwoNames => forger.leaf(NODE_A, |leaf| {
                let other = uri("spiffe://lizmon.internal/node/b");
                leaf.subject_alt_names.push(other);
            }),
            Self::OtherTrustDomain => forger.leaf("spiffe://other.internal/node/a", |_| ()),
            Self::Malformed => Shown {
                chain: vec![CertificateDer::from(b"no certificate".to_vec())],
                key: node_a.key.clone_key(),
            },
            Self::WithoutItsKey => Shown {
                chain: node_a.chain.clone(),
                key: KeyPair::generate()
                    .unwrap()
                    .serialize_der()
                    .try_into()
                    .unwrap(),
            },
        }
    }
}

fn identity(shown: &Shown) -> Identity {
    Identity::from_der(&shown.chain[0]).unwrap()
}

/// All credentials, at one server.
pub(super) struct CredentialSet {
    shown: HashMap<Certificate, Shown>,
    holders: HashMap<Who, Holder>,
    requesters: Vec<(Certificate, Requester)>,
}

impl CredentialSet {
    /// Issues and forges certificates, opens connections, revokes, and advances the clock.
    pub(super) async fn assemble(world: &World, port: u16) -> Self {
        let mut credentials = Self {
            shown: HashMap::new(),
            holders: HashMap::new(),
            requesters: Vec::new(),
        };
        credentials.issue(world);
        credentials.revoke(world, port).await;
        credentials.end(world, port).await;
        let node_a = credentials.shown[&Certificate::Of(Who::NodeA)].clone();
        for flaw in Flaw::ALL {
            let shown = flaw.shown(world, &node_a);
            credentials.shown.insert(Certificate::Flawed(flaw), shown);
        }
        for certificate in Certificate::all() {
            let requester = match certificate {
                Certificate::Of(_) => {
                    Requester::http1(credentials.config(world, certificate), port).await
                }
                // One connection would end before all is asked: without a certificate none lasts
                // long.
                Certificate::Absent
                | Certificate::Ended(Way::New)
                | Certificate::Revoked(Way::New)
                | Certificate::Flawed(_) => {
                    Requester::new(credentials.config(world, certificate), port)
                }
                // They have an earlier connection or session.
                Certificate::Ended(_) | Certificate::Revoked(_) => continue,
            };
            credentials.requesters.push((certificate, requester));
        }
        assert_eq!(credentials.requesters.len(), Certificate::all().len());
        credentials
    }

    fn issue(&mut self, world: &World) {
        for who in Who::ALL {
            let shown = match who {
                Who::NodeAUnlisted => Forger::with_issuing_key(world).leaf(NODE_A, |_| ()),
                // The next one of the same name overwrites the files, so they are read at once.
                _ => {
                    let holder = world.holder_with(who.role(), who.name(), who.limits());
                    let shown = holder.shown();
                    self.holders.insert(who, holder);
                    shown
                }
            };
            self.shown.insert(Certificate::Of(who), shown);
        }
    }

    /// Waits until the server knows the revocation: earlier sessions are void then.
    async fn revoke(&mut self, world: &World, port: u16) {
        let shown = world.node("a").shown();
        self.take_over(world, port, Certificate::Revoked, &shown)
            .await;
        let serial = hex::encode(identity(&shown).serial);
        let serial = serial.trim_start_matches("00").parse().unwrap();
        let now = world.clock.now();
        world
            .ca
            .revoke(&serial, Reason::KeyCompromise, now)
            .unwrap();
        let config = self.config(world, Certificate::Revoked(Way::New));
        let refused = Outcome::Alert(AlertDescription::CertificateRevoked);
        let is_refused = async {
            let requester = || Requester::new(config.clone(), port);
            while requester().ask_all(vec![Ask::health()]).await[0] != refused {}
        };
        let heard = tokio::time::timeout(SOON, is_refused).await;
        heard.expect("the server hears of the revocation");
    }

    async fn end(&mut self, world: &World, port: u16) {
        let shown = world.holder_for(Role::Node, "a", BRIEF_SECS).shown();
        self.take_over(world, port, Certificate::Ended, &shown)
            .await;
        world.clock.advance(LATER_SECS);
    }

    /// Opens connections, and gets a session, while the certificate is valid.
    async fn take_over(
        &mut self,
        world: &World,
        port: u16,
        over: fn(Way) -> Certificate,
        shown: &Shown,
    ) {
        for way in Way::ALL {
            self.shown.insert(over(way), shown.clone());
            let config = self.config(world, over(way));
            let requester = match way {
                Way::OpenHttp1 => Requester::http1(config, port).await,
                Way::OpenHttp2 => Requester::http2(config, port).await,
                Way::Resumed | Way::ResumedTls12 => Requester::resumed(config, port).await,
                Way::New => continue,
            };
            self.requesters.push((over(way), requester));
        }
    }

    fn config(&self, world: &World, certificate: Certificate) -> ClientConfig {
        let versions = match certificate {
            Certificate::Ended(Way::ResumedTls12) | Certificate::Revoked(Way::ResumedTls12) => {
                &TLS12
            }
            _ => &TLS13,
        };
        let shown = self.shown.get(&certificate).cloned();
        tls_config_of(&[versions], &world.root(), shown, &["http/1.1"])
    }

    /// The certificate itself: DER.
    pub(super) fn leaf(&self, certificate: Certificate) -> Option<&[u8]> {
        let shown = self.shown.get(&certificate)?;
        shown.chain.first().map(AsRef::as_ref)
    }

    /// The certificate and those of its issuers, if there is one that is shown.
    pub(super) fn chain(&self, certificate: Certificate) -> Option<&[CertificateDer<'static>]> {
        Some(&self.shown.get(&certificate)?.chain)
    }

    /// How the trusted proxy connects.
    pub(super) fn proxy(&self, world: &World) -> ClientConfig {
        self.config(world, Certificate::Of(Who::Proxy))
    }

    /// The holder to whom the CA issued the certificate.
    pub(super) fn holder(&self, who: Who) -> &Holder {
        &self.holders[&who]
    }

    /// A requester for each certificate.
    pub(super) fn take_requesters(&mut self) -> Vec<(Certificate, Requester)> {
        std::mem::take(&mut self.requesters)
    }
}
