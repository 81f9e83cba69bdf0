//! Reads the answers of a CA: extracts certificates from PKCS #7, and checks that they match the
//! request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::CertificateChoices;
use cms::cert::x509::der::{Decode, Encode};
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use lizmon_pki::identity::Leaf;
use lizmon_pki::path::{Fault, PathVerifier, RevocationPolicy, Usage, unix_time};
use lizmon_pki::provider::provider;
use lizmon_protocol::name::{SpiffeId, TrustDomain};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why an answer is rejected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AnswerFlaw {
    /// Not a certificates-only PKCS #7 message.
    #[error("it is not a PKCS #7 bundle of certificates")]
    NotPkcs7,
    /// Larger than the limit.
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    /// No certificate or several certificates, where one was requested.
    #[error("it contains {0} certificates instead of one")]
    Count(usize),
    /// No root certificate.
    #[error("it contains no root certificate")]
    NoRoot,
    /// The certificate is for another key.
    #[error("the certificate is for another key than the requested one")]
    Key,
    /// The certificate has another identity, or none.
    #[error("the certificate is not {0}'s")]
    Identity(Box<str>),
    /// The certificate does not lead to a trusted root, has expired, is not valid yet, or is not a
    /// client certificate.
    #[error("servers would reject the certificate: {0}")]
    Chain(Fault),
}

/// Extracts the certificates of a body, in no particular order: RFC 7030 section 4.1.3.
pub(crate) fn read_certificates(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, AnswerFlaw> {
    let packed: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let not_pkcs7 = |_| AnswerFlaw::NotPkcs7;
    let der = STANDARD.decode(packed).map_err(|_| AnswerFlaw::NotPkcs7)?;
    let info = ContentInfo::from_der(&der).map_err(not_pkcs7)?;
    let data: SignedData = info.content.decode_as().map_err(not_pkcs7)?;
    let found = data.certificates.ok_or(AnswerFlaw::NotPkcs7)?.0;
    found
        .iter()
        .filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate.to_der()),
            CertificateChoices::Other(_) => None,
        })
        .map(|der| der.map(CertificateDer::from).map_err(not_pkcs7))
        .collect()
}

/// The certificates of a CA: the self-signed roots, and the issuing CAs below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaCertificates {
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) issuing: Vec<CertificateDer<'static>>,
}

impl CaCertificates {
    pub(crate) fn read(body: &[u8]) -> Result<Self, AnswerFlaw> {
        let (roots, issuing): (Vec<_>, Vec<_>) = read_certificates(body)?
            .into_iter()
            .filter(|der| parse(der).is_some_and(|certificate| certificate.is_ca()))
            .partition(|der| parse(der).is_some_and(|certificate| is_self_signed(&certificate)));
        if roots.is_empty() {
            return Err(AnswerFlaw::NoRoot);
        }
        Ok(Self { roots, issuing })
    }

    /// Checks a new certificate and returns its chain. The certificate must be for `id` and the key
    /// `spki` (DER), and a server that trusts `roots` must accept it at `now`. If it is not valid
    /// yet, it is checked at the start of its validity. So a client whose clock is behind the CA's
    /// keeps the certificate and waits, and does not request more of them.
    pub(crate) fn chain_of(
        &self,
        leaf: CertificateDer<'static>,
        id: impl Fn(&SpiffeId) -> bool,
        spki: &[u8],
        now: u64,
    ) -> Result<NewChain, AnswerFlaw> {
        let no_identity = || AnswerFlaw::Identity("anyone".into());
        let Leaf {
            spiffe_id: identity,
            not_before,
            not_after,
            certificate,
            ..
        } = Leaf::read(&leaf).map_err(|_| no_identity())?;
        if certificate.public_key().raw != spki {
            return Err(AnswerFlaw::Key);
        }
        if !id(&identity) {
            return Err(AnswerFlaw::Identity(identity.to_string().into()));
        }
        let above: Vec<_> = self
            .issuing
            .iter()
            .filter(|der| {
                parse(der).is_some_and(|issuing| issuing.subject() == certificate.issuer())
            })
            .cloned()
            .collect();
        let begins = |der: &CertificateDer<'_>| {
            let begin = parse(der)?.validity().not_before.timestamp();
            u64::try_from(begin).ok()
        };
        let begun = above.iter().filter_map(begins).fold(not_before, u64::max);
        verify(&self.roots, &leaf, &above, now.max(begun)).map_err(AnswerFlaw::Chain)?;
        let mut chain = vec![leaf];
        chain.extend(above);
        Ok(NewChain {
            identity,
            not_before: begun,
            not_after,
            chain,
        })
    }
}

/// A new certificate that has been checked, with its issuing CAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewChain {
    pub(crate) identity: SpiffeId,
    /// The first second at which the whole chain is valid.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// The trust domain in a lizmon root. `None` for any other root.
pub(crate) fn trust_domain(root: &CertificateDer<'_>) -> Option<TrustDomain> {
    let certificate = parse(root)?;
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.parse().ok(),
            _ => None,
        })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// Checks the signature too: a certificate with equal names that another key signed is not a root.
fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject() == certificate.issuer() && certificate.verify_signature(None).is_ok()
}

/// Verifies a chain as a server would. Does not check revocation: the CA has just issued the
/// certificate.
fn verify(
    roots: &[CertificateDer<'_>],
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    now: u64,
) -> Result<(), Fault> {
    let roots: Vec<_> = roots.iter().map(|root| root.clone().into_owned()).collect();
    let algorithms = provider().signature_verification_algorithms.all;
    PathVerifier::new(
        &roots,
        Vec::new(),
        Vec::new(),
        RevocationPolicy::CrlOptional,
        algorithms,
    )
    .verify(leaf, above, unix_time(now), Usage::Client)
}

/// Encodes certificates as PEM.
pub(crate) fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let block = |der: &CertificateDer<'_>| pem::Pem::new("CERTIFICATE", der.as_ref());
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let blocks: Vec<_> = certificates.iter().map(block).collect();
    pem::encode_many_config(&blocks, unix)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
        KeyPair, KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
    };

    use super::*;

    /// 2026-01-15.
    const NOW: u64 = 1_768_435_200;
    const WEB1: &str = "spiffe://lizmon.internal/node/web1";

    /// A root, an issuing CA below it, and the certificates that they sign.
    struct Ca {
        root: CertificateDer<'static>,
        issuing: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Ca {
        fn new() -> Self {
            let params = |name: &str| {
                let mut params = CertificateParams::default();
                params.distinguished_name.push(DnType::CommonName, name);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                params
            };
            let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            let root = params("root").self_signed(&root_key).unwrap();
            let root_issuer = Issuer::new(params("root"), root_key);
            let issuing = params("issuing").signed_by(&key, &root_issuer).unwrap();
            Self {
                root: root.der().clone(),
                issuing: issuing.der().clone(),
                issuer: Issuer::new(params("issuing"), key),
            }
        }

        fn leaf(&self, id: &str, key: &KeyPair, ends: i32) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
            params.not_before = date_time_ymd(2026, 1, 1);
            params.not_after = date_time_ymd(ends, 1, 10);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(key, &self.issuer).unwrap().der().clone()
        }

        fn certificates(&self) -> CaCertificates {
            CaCertificates {
                roots: vec![self.root.clone()],
                issuing: vec![self.issuing.clone()],
            }
        }
    }

    fn body(certificates: &[CertificateDer<'_>]) -> String {
        use cms::cert::x509::Certificate;
        let all: Vec<_> = certificates
            .iter()
            .map(|der| Certificate::from_der(der).unwrap())
            .collect();
        STANDARD.encode(ContentInfo::try_from(all).unwrap().to_der().unwrap())
    }

    #[test]
    fn roots_are_distinguished_from_intermediates() {
        let (ca, other) = (Ca::new(), Ca::new());
        let leaf = ca.leaf(WEB1, &KeyPair::generate().unwrap(), 2027);
        let all = [ca.issuing.clone(), leaf, ca.root.clone()];
        assert_eq!(
            CaCertificates::read(body(&all).as_bytes()),
            Ok(ca.certificates())
        );
        // A certificate with the names of a root and the signature of another CA is not a root.
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "issuing");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let posing = params.signed_by(&key, &other.issuer).unwrap();
        let got = CaCertificates::read(body(&[posing.der().clone()]).as_bytes());
        assert_eq!(got, Err(AnswerFlaw::NoRoot));
        let bodies: [&[u8]; 5] = [b"", b"hello", b"<html>", b"MIIB", &[0xff, 0xfe]];
        for bad in bodies {
            assert_eq!(read_certificates(bad), Err(AnswerFlaw::NotPkcs7), "{bad:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        let (ca, other) = (Ca::new(), Ca::new());
        let (ours, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let db1 = "spiffe://lizmon.internal/node/db1";
        let coming = {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(WEB1.try_into().unwrap())];
            (params.not_before, params.not_after) =
                (date_time_ymd(2026, 2, 1), date_time_ymd(2026, 3, 1));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.signed_by(&ours, &ca.issuer).unwrap().der().clone()
        };
        let cases: [(&str, CertificateDer<'static>, Option<&str>); 7] = [
            ("ours", ca.leaf(WEB1, &ours, 2027), None),
            ("ours, by a clock that is ahead of ours", coming, None),
            ("another key", ca.leaf(WEB1, &theirs, 2027), Some("Key")),
            ("another's", ca.leaf(db1, &ours, 2027), Some("Identity")),
            (
                "one without an identity",
                ca.leaf("https://x/", &ours, 2027),
                Some("Identity"),
            ),
            ("another CA's", other.leaf(WEB1, &ours, 2027), Some("Chain")),
            ("ended", ca.leaf(WEB1, &ours, 2026), Some("Chain")),
        ];
        for (story, leaf, expected) in cases {
            let got = ca.certificates().chain_of(
                leaf.clone(),
                |id| id.to_string() == WEB1,
                &ours.subject_public_key_info(),
                NOW,
            );
            match (got, expected) {
                (Ok(got), None) => {
                    assert_eq!(got.chain, [leaf, ca.issuing.clone()], "{story}");
                    assert_eq!(got.identity.to_string(), WEB1, "{story}");
                }
                (Err(flaw), Some(part)) => {
                    assert!(format!("{flaw:?}").starts_with(part), "{story}: {flaw:?}");
                }
                (got, _) => panic!("{story}: {got:?}"),
            }
        }
    }
}
