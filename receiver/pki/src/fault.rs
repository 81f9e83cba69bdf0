//! Why a certificate is refused: each reason in words of its own, the same at both ends, with what helps.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::date::rfc3339;
use crate::usage::Usage;

/// Characters of a name that are said: a stranger chose it.
const NAME_CHARS_MAX: usize = 200;

/// Why a chain is not good. Times are epoch seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Somebody on every path is revoked.
    Revoked(ChainMember),
    /// No CRL speaks about somebody whom this authority issued to.
    NoList {
        /// The authority's name.
        issuer: String,
    },
    /// CRLs in this authority's name are here, and another key signed them all.
    ForeignList {
        /// The authority's name.
        issuer: String,
    },
    /// It is over.
    Expired {
        /// What is.
        member: ChainMember,
        /// Its last second.
        not_after: u64,
        /// By this clock.
        now: u64,
    },
    /// It has not begun.
    NotYetValid {
        /// What has not.
        member: ChainMember,
        /// Its first second.
        not_before: u64,
        /// By this clock.
        now: u64,
    },
    /// It is for another use.
    Purpose {
        /// What is.
        member: ChainMember,
        /// The use that it lacks.
        usage: Usage,
    },
    /// An authority above it may not vouch for one of its names.
    NameConstraints,
    /// Nobody sent the certificate of this authority, and it is no root.
    MissingIssuer {
        /// The authority's name.
        issuer: String,
    },
    /// The chain is whole, and ends at an authority that is not trusted.
    UnknownRoot {
        /// The authority's name.
        issuer: String,
    },
    /// The key of the authority that it names did not sign it.
    BadSignature,
    /// It is signed in a way that nobody trusts any more, or that is not known here.
    SignatureAlgorithm,
    /// It says that nobody may take it who does not understand an extension of it.
    CriticalExtension(ChainMember),
    /// There are more authorities above it than one of these allows.
    PathLength,
    /// A certificate above it is no authority's.
    NotAnAuthority,
    /// It is an authority's own.
    IsAuthority,
    /// It cannot be read.
    Malformed(webpki::Error),
    /// WebPKI refuses it for another reason.
    Other(webpki::Error),
}

/// Whose certificate is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainMember {
    /// The one that was judged.
    Leaf,
    /// That of an authority above it, by its name.
    Authority(String),
}

impl std::error::Error for Fault {}

impl Fault {
    /// Whether it may be a wrong clock's fault, here or elsewhere.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }

    /// That a chain, the leaf first, is over since `not_after`, the first end in it.
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

    /// What WebPKI found, with what it does not say.
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
            Self::NoList { issuer } => write!(
                f,
                "no revocation list of the CA that issued it, `{issuer}`, is held here: put the current list of that CA beside the others"
            ),
            Self::ForeignList { issuer } => write!(
                f,
                "the revocation list of `{issuer}` that is held here does not verify, for another key signed it: put the list there that this CA has signed"
            ),
            Self::Expired {
                member,
                not_after,
                now,
            } => {
                let (end, now) = (rfc3339(*not_after), rfc3339(*now));
                let advice = match member {
                    ChainMember::Leaf => "have a new one issued",
                    ChainMember::Authority(_) => "replace that authority, and what it issued",
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
                "a name in it is outside the name constraints of an authority above it, or these constrain URIs, which is not supported: have it issued by a CA that may certify that name",
            ),
            Self::MissingIssuer { issuer } => write!(
                f,
                "`{issuer}`, which issued it, is no root that is trusted here, and its certificate was not sent: put the issuing (intermediate) certificates behind it in its file, or trust the root of that CA"
            ),
            Self::UnknownRoot { issuer } => write!(
                f,
                "it leads to `{issuer}`, which is no root that is trusted here: another CA issued it"
            ),
            Self::BadSignature => f.write_str(
                "a signature in its chain is not by the key of the authority that it names: another CA of the same name issued it, or it was changed",
            ),
            Self::SignatureAlgorithm => f.write_str(
                "it, or an authority above it, is signed by an algorithm that is not accepted, such as SHA-1: have it signed with SHA-256 or better",
            ),
            Self::CriticalExtension(member) => write!(
                f,
                "{member} has a critical extension that is not supported here: have it issued without, or with that extension not critical"
            ),
            Self::PathLength => f.write_str(
                "there are more authorities above it than one of them allows (path length): have it issued by that one itself",
            ),
            Self::NotAnAuthority => f.write_str(
                "a certificate above it is no authority's, and may not issue any: have it issued by a CA",
            ),
            Self::IsAuthority => f.write_str(
                "it is a CA's own certificate: show one that the CA issued to somebody",
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
            Self::Authority(name) => write!(f, "the authority `{name}` above it"),
        }
    }
}

/// The first of these that is so, from the leaf upwards; the leaf where none is.
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

/// RFC 5280 section 4.2.1.12: a certificate without the extension is for every use.
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

/// Whether WebPKI refuses whoever has it.
fn is_strange(extension: &x509_parser::extensions::X509Extension<'_>) -> bool {
    /// subjectKeyIdentifier, keyUsage, subjectAltName, basicConstraints, nameConstraints, cRLDistributionPoints,
    /// authorityKeyIdentifier, extKeyUsage: RFC 5280 section 4.2.1.
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

/// Goes up from the leaf as far as certificates are here: who issued the last of them is missing.
fn missing_issuer(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Fault {
    let parse = |der| X509Certificate::from_der(der).ok().map(|(_, found)| found);
    let above: Vec<X509Certificate<'_>> = above.iter().filter_map(|der| parse(der)).collect();
    let Some(mut last) = parse(leaf) else {
        return Fault::Other(webpki::Error::UnknownIssuer);
    };
    // Nobody is passed twice, whatever circles a stranger's certificates go in.
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

/// A name that a stranger may have chosen, fit for a log.
pub(crate) fn loggable_name(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    text.escape_debug().take(NAME_CHARS_MAX).collect()
}

fn epoch(secs: i64) -> u64 {
    u64::try_from(secs).unwrap_or(0)
}
