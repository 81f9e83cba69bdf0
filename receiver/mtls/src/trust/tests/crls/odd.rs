//! CRLs as other CAs may issue them, which rcgen alone does not write.

use super::*;

/// A CRL as other CAs may issue it.
pub(super) struct Odd<'a> {
    pub(super) ca: &'a Ca,
    pub(super) number: Option<&'a [u8]>,
    pub(super) revoked: &'a [u8],
    pub(super) this_update: u64,
    pub(super) scope: Option<rcgen::CrlScope>,
}

impl Odd<'_> {
    pub(super) fn params(&self) -> CertificateRevocationListParams {
        let revoked = self.revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: at(self.this_update),
            reason_code: None,
            invalidity_date: None,
        });
        CertificateRevocationListParams {
            this_update: at(self.this_update),
            next_update: at(self.this_update + 30 * DAY),
            crl_number: SerialNumber::from_slice(self.number.unwrap_or(&[1])),
            issuing_distribution_point: self.scope.map(|scope| {
                rcgen::CrlIssuingDistributionPoint {
                    distribution_point: rcgen::CrlDistributionPoint {
                        uris: vec!["http://ca.example/crl".to_owned()],
                    },
                    scope: Some(scope),
                }
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    /// Returns the CRL as PEM. With `other_extension`, the extension with the number is replaced by
    /// that one.
    pub(super) fn pem(&self, other_extension: Option<(&[u8], bool)>) -> String {
        let signed = self.params().signed_by(&self.ca.issuer).unwrap();
        let Some((oid_end, critical)) = other_extension else {
            return signed.pem().unwrap();
        };
        let der = signed.der().to_vec();
        resign(self.ca, &der, oid_end, critical)
    }
}

/// Replaces the OID of the extension cRLNumber, 2.5.29.20, by 2.5.29.X, and signs again.
pub(super) fn resign(ca: &Ca, der: &[u8], oid_end: &[u8], critical: bool) -> String {
    use x509_parser::asn1_rs::{Any, FromDer as _};
    let content = Any::from_der(der).unwrap().1.data;
    let (rest, tbs) = Any::from_der(content).unwrap();
    let algorithm_and_signature = rest;
    let (_, algorithm) = Any::from_der(algorithm_and_signature).unwrap();
    let algorithm = sequence(0x30, algorithm.data);
    let oid = [0x06, 0x03, 0x55, 0x1d, 20];
    let at = tbs
        .data
        .windows(5)
        .position(|window| window == oid)
        .unwrap();
    // The extension is short, so the length byte of its SEQUENCE comes right before its OID.
    let length = usize::from(tbs.data[at - 1]);
    let value = &tbs.data[at + 5..at - 1 + 1 + length];
    let mut inside = [&[0x06, 0x03, 0x55, 0x1d][..], oid_end].concat();
    if critical {
        inside.extend([0x01, 0x01, 0xff]);
    }
    inside.extend(value);
    let changed = sequence(0x30, &inside);
    let whole = |extensions_at: usize| {
        // The extensions come last: [0] { SEQUENCE { … } }.
        let crl = Any::from_der(Any::from_der(&tbs.data[extensions_at..]).unwrap().1.data)
            .unwrap()
            .1;
        let begin = crl.data.as_ptr() as usize - tbs.data.as_ptr() as usize;
        let others = [
            &crl.data[..at - 2 - begin],
            &changed,
            &crl.data[at - 1 + 1 + length - begin..],
        ]
        .concat();
        [
            &tbs.data[..extensions_at],
            &sequence(0xa0, &sequence(0x30, &others)),
        ]
        .concat()
    };
    let is_last = |at: &usize| {
        tbs.data[*at] == 0xa0
            && Any::from_der(&tbs.data[*at..]).is_ok_and(|(rest, _)| rest.is_empty())
    };
    let extensions_at = (0..tbs.data.len()).find(is_last).unwrap();
    let tbs = sequence(0x30, &whole(extensions_at));
    let signature = rcgen::SigningKey::sign(ca.issuer.key(), &tbs).unwrap();
    let signature = sequence(0x03, &[&[0][..], &signature].concat());
    let der = sequence(0x30, &[tbs, algorithm, signature].concat());
    ::pem::encode(&::pem::Pem::new("X509 CRL", der))
}

pub(super) fn sequence(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

pub(super) const NONE: Option<(&[u8], bool)> = None;
/// An unknown, non-critical extension in place of the number.
pub(super) const NO_NUMBER: Option<(&[u8], bool)> = Some((&[99], false));
pub(super) const UNKNOWN_CRITICAL: Option<(&[u8], bool)> = Some((&[99], true));
/// 2.5.29.27, deltaCRLIndicator.
pub(super) const DELTA: Option<(&[u8], bool)> = Some((&[27], true));
