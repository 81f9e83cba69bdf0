//! Why a certificate is rejected. Each reason has its own message, the same on client and server,
//! with a hint on what to do.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::date::rfc3339;
use crate::usage::Usage;

/// The maximum length of a name in a message. The peer controls the name.
const NAME_CHARS_MAX: usize = 200;

/// Why a chain is not valid. Times are epoch seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Every path contains a revoked certificate.
    Revoked(ChainMember),
    /// No CRL covers a certificate that this authority issued.
    NoCrl {
        /// The authority's name.
        issuer: String,
    },
    /// All CRLs with this authority's name are signed by another key.
    ForeignCrl {
        /// The authority's name.
        issuer: String,
    },
    /// A certificate has expired.
    Expired {
        /// The expired certificate.
        member: ChainMember,
        /// Its last valid second.
        not_after: u64,
        /// The current time of the local clock.
        now: u64,
    },
    /// A certificate is not valid yet.
    NotYetValid {
        /// The certificate that is not valid yet.
        member: ChainMember,
        /// Its first valid second.
        not_before: u64,
        /// The current time of the local clock.
        now: u64,
    },
    /// A certificate does not allow this usage.
    Purpose {
        /// The certificate.
        member: ChainMember,
        /// The usage that it does not allow.
        usage: Usage,
    },
    /// The name constraints of an authority exclude one of the names.
    NameConstraints,
    /// The certificate of this authority is missing from the chain, and the authority is not a
    /// root.
    MissingIssuer {
        /// The authority's name.
        issuer: String,
    },
    /// The chain is complete, but ends at an authority that is not trusted.
    UnknownRoot {
        /// The authority's name.
        issuer: String,
    },
    /// The signature was not made by the key of the named issuer.
    BadSignature,
    /// The signature algorithm is obsolete or unknown.
    SignatureAlgorithm,
    /// A certificate has a critical extension that is not supported.
    CriticalExtension(ChainMember),
    /// The chain is longer than a path length constraint allows.
    PathLength,
    /// The issuer's certificate is not a CA certificate.
    NotAnAuthority,
    /// The leaf is a CA certificate.
    IsAuthority,
    /// A certificate cannot be parsed.
    Malformed(webpki::Error),
    /// webpki rejects the chain for another reason.
    Other(webpki::Error),
}

/// The certificate in the chain that a fault is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainMember {
    /// The leaf.
    Leaf,
    /// The certificate of an authority, by its name.
    Authority(String),
}

impl std::error::Error for Fault {}

impl Fault {
    /// Whether a wrong clock may be the cause, here or on another machine.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }

    /// The fault of a chain (leaf first) that has expired. `not_after` is the earliest expiry in
    /// the chain.
    pub fn ended(chain: &[CertificateDer<'_>], not_after: u64, now: u64) -> Self {
        let is_it = |certificate: &X509Certificate<'_>| {
            epoch(certificate.validity().not_after.timestamp()) == not_after
        };
        let member = chain.split_first();
        Self::Expired {
            member: member.map_or(ChainMember::Leaf, |(leaf, above)| {
                faulty_member(leaf, above, is_it)
            }),
            not_after,
            now,
        }
    }

    /// Turns an error of webpki into a fault, and adds details that webpki does not report.
    pub(crate) fn explain(
        error: webpki::Error,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Self {
        use webpki::Error as E;
        let secs = |time: UnixTime| time.as_secs();
        match error {
            E::CertExpired { time, not_after } => Self::Expired {
                member: faulty_member(leaf, above, |certificate| {
                    epoch(certificate.validity().not_after.timestamp()) == secs(not_after)
                }),
                not_after: secs(not_after),
                now: secs(time),
            },
            E::CertNotValidYet { time, not_before } => Self::NotYetValid {
                member: faulty_member(leaf, above, |certificate| {
                    epoch(certificate.validity().not_before.timestamp()) == secs(not_before)
                }),
                not_before: secs(not_before),
                now: secs(time),
            },
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::Purpose {
                member: faulty_member(leaf, above, |certificate| lacks(certificate, usage)),
                usage,
            },
            E::NameConstraintViolation => Self::NameConstraints,
            E::UnknownIssuer => missing_issuer(leaf, above),
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::SignatureAlgorithmMismatch
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::SignatureAlgorithm,
            E::UnsupportedCriticalExtension => {
                Self::CriticalExtension(faulty_member(leaf, above, |certificate| {
                    certificate.iter_extensions().any(is_strange)
                }))
            }
            E::PathLenConstraintViolated | E::MaximumPathDepthExceeded => Self::PathLength,
            E::EndEntityUsedAsCa => Self::NotAnAuthority,
            E::CaUsedAsEndEntity => Self::IsAuthority,
            E::BadDer | E::BadDerTime | E::TrailingData(_) => Self::Malformed(error),
            error => Self::Other(error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(ChainMember::Leaf) => f.write_str("it has been revoked: have a new one issued"),
            Self::Revoked(member) => write!(
                f,
                "{member} has been revoked: have a new one issued by the CA that took its place"
            ),
            Self::NoCrl { issuer } => write!(
                f,
                "there is no CRL of the CA that issued it, `{issuer}`, here: add the current CRL of that CA to the others"
            ),
            Self::ForeignCrl { issuer } => write!(
                f,
                "the CRL of `{issuer}` here does not verify, because another key signed it: replace it with the CRL that this CA has signed"
            ),
            Self::Expired {
                member,
                not_after,
                now,
            } => {
                let (end, now) = (rfc3339(*not_after), rfc3339(*now));
                let advice = match member {
                    ChainMember::Leaf => "have a new one issued",
                    ChainMember::Authority(_) => "replace that CA, and what it issued",
                };
                write!(
                    f,
                    "{member} has expired: it was valid until {end}, and the clock here says {now}: {advice}, if that clock is right"
                )
            }
            Self::NotYetValid {
                member,
                not_before,
                now,
            } => {
                let (begin, now) = (rfc3339(*not_before), rfc3339(*now));
                write!(
                    f,
                    "{member} is not valid yet: it begins at {begin}, and the clock here says {now}: compare the clocks here and at the CA"
                )
            }
            Self::Purpose { member, usage } => {
                let lacks = match member {
                    ChainMember::Leaf => "its".to_owned(),
                    member => format!("{member}: its"),
                };
                write!(
                    f,
                    "{lacks} extended key usage does not allow {usage}: have one issued with {usage}"
                )
            }
            Self::NameConstraints => f.write_str(
                "a name in it is outside the name constraints of a CA above it, or these constrain URIs, which is not supported: have it issued by a CA that may certify that name",
            ),
            Self::MissingIssuer { issuer } => write!(
                f,
                "`{issuer}`, which issued it, is not a trusted root here, and the certificate of that CA was not sent: append the intermediate certificates to its file, or trust the root of that CA"
            ),
            Self::UnknownRoot { issuer } => write!(
                f,
                "its chain ends at `{issuer}`, which is not a trusted root here: another CA issued it"
            ),
            Self::BadSignature => f.write_str(
                "a signature in its chain is not by the key of the CA that it names: another CA of the same name issued it, or it was changed",
            ),
            Self::SignatureAlgorithm => f.write_str(
                "it, or a CA above it, is signed by an algorithm that is not accepted, such as SHA-1: have it signed with SHA-256 or better",
            ),
            Self::CriticalExtension(member) => write!(
                f,
                "{member} has a critical extension that is not supported here: have it issued without, or with that extension not critical"
            ),
            Self::PathLength => f.write_str(
                "there are more CAs above it than one of them allows (path length): have it issued by that CA itself",
            ),
            Self::NotAnAuthority => f.write_str(
                "a certificate above it is not a CA's, and may not issue any: have it issued by a CA",
            ),
            Self::IsAuthority => f.write_str(
                "it is a CA certificate: use one that the CA issued",
            ),
            Self::Malformed(error) => write!(f, "it cannot be read as a certificate: {error}"),
            Self::Other(error) => write!(f, "its chain cannot be verified: {error}"),
        }
    }
}

impl fmt::Display for ChainMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf => f.write_str("it"),
            Self::Authority(name) => write!(f, "the CA `{name}` above it"),
        }
    }
}

/// The first certificate that matches, from the leaf upwards. The leaf if none matches.
fn faulty_member(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    is_so: impl Fn(&X509Certificate<'_>) -> bool,
) -> ChainMember {
    let found = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        is_so(&certificate).then(|| loggable_name(certificate.subject()))
    };
    match found(leaf) {
        Some(_) => ChainMember::Leaf,
        None => above
            .iter()
            .find_map(found)
            .map_or(ChainMember::Leaf, ChainMember::Authority),
    }
}

/// RFC 5280 section 4.2.1.12: a certificate without the extension allows every usage.
fn lacks(certificate: &X509Certificate<'_>, usage: Usage) -> bool {
    let Ok(found) = certificate.extended_key_usage() else {
        return true;
    };
    found.is_some_and(|usages| {
        !usages.value.any
            && !match usage {
                Usage::Client => usages.value.client_auth,
                Usage::Server => usages.value.server_auth,
            }
    })
}

/// Whether webpki rejects a certificate with this extension.
fn is_strange(extension: &x509_parser::extensions::X509Extension<'_>) -> bool {
    /// subjectKeyIdentifier, keyUsage, subjectAltName, basicConstraints, nameConstraints,
    /// cRLDistributionPoints, authorityKeyIdentifier, extKeyUsage: RFC 5280 section 4.2.1.
    const KNOWN: [&str; 8] = [
        "2.5.29.14",
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.30",
        "2.5.29.31",
        "2.5.29.35",
        "2.5.29.37",
    ];
    extension.critical && !KNOWN.contains(&extension.oid.to_id_string().as_str())
}

/// Follows the issuers from the leaf upwards. The issuer of the last certificate found is the
/// missing one.
fn missing_issuer(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Fault {
    let parse = |der| X509Certificate::from_der(der).ok().map(|(_, found)| found);
    let above: Vec<X509Certificate<'_>> = above.iter().filter_map(|der| parse(der)).collect();
    let Some(mut last) = parse(leaf) else {
        return Fault::Other(webpki::Error::UnknownIssuer);
    };
    // Each certificate is visited once, so that a loop in the peer's certificates ends.
    let mut left: Vec<X509Certificate<'_>> = above;
    while last.issuer().as_raw() != last.subject().as_raw() {
        let issuer = last.issuer().as_raw().to_vec();
        let Some(at) = left
            .iter()
            .position(|found| found.subject().as_raw() == issuer)
        else {
            let issuer = loggable_name(last.issuer());
            return Fault::MissingIssuer { issuer };
        };
        last = left.swap_remove(at);
    }
    Fault::UnknownRoot {
        issuer: loggable_name(last.subject()),
    }
}

/// A name that is safe to log. The peer may control it.
pub(crate) fn loggable_name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    text.escape_debug().take(NAME_CHARS_MAX).collect()
}

fn epoch(secs: i64) -> u64 {
    u64::try_from(secs).unwrap_or(0)
}
