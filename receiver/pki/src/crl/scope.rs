//! Which certificates of its issuer a CRL covers.

use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{CertificateRevocationList, X509Certificate};

/// Which certificates of its issuer a CRL covers: RFC 5280 section 5.2.5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct CrlScope {
    only_user_certs: bool,
    only_ca_certs: bool,
    /// The URIs of the distribution point. They distinguish the parts of a partitioned CRL.
    locations: Vec<String>,
}

impl CrlScope {
    pub(super) fn of(crl: &CertificateRevocationList<'_>) -> Self {
        let point = crl
            .extensions()
            .iter()
            .find_map(|found| match found.parsed_extension() {
                ParsedExtension::IssuingDistributionPoint(point) => Some(point),
                _ => None,
            });
        point.map_or_else(Self::default, |point| Self {
            only_user_certs: point.only_contains_user_certs,
            only_ca_certs: point.only_contains_ca_certs,
            locations: point
                .distribution_point
                .as_ref()
                .map(locations)
                .unwrap_or_default(),
        })
    }

    /// Follows the rules of webpki: a certificate with CRL distribution points is covered only by a
    /// CRL with at least one of the same URIs.
    pub(super) fn includes(&self, certificate: &X509Certificate<'_>) -> bool {
        let is_ca = certificate.is_ca();
        if self.only_user_certs && is_ca || self.only_ca_certs && !is_ca {
            return false;
        }
        let points =
            certificate
                .iter_extensions()
                .find_map(|found| match found.parsed_extension() {
                    ParsedExtension::CRLDistributionPoints(points) => Some(points),
                    _ => None,
                });
        points.is_none_or(|points| {
            let named = points
                .iter()
                .filter(|point| point.crl_issuer.is_none() && point.reasons.is_none());
            named
                .filter_map(|point| point.distribution_point.as_ref())
                .flat_map(locations)
                .any(|location| self.locations.contains(&location))
        })
    }
}

fn locations(name: &DistributionPointName<'_>) -> Vec<String> {
    let DistributionPointName::FullName(names) = name else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}
