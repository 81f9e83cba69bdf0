//! The response bodies of RFC 7030: certificates as PKCS #7 in base64.
//!
//! Bodies are base64 whatever `Content-Transfer-Encoding` says: RFC 8951 section 3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::x509::Certificate;
use cms::cert::x509::der::{Decode, Encode, Error as DerError};
use cms::content_info::ContentInfo;
use rustls_pki_types::CertificateDer;

/// Characters in a line: what every decoder accepts, `openssl base64` included.
const LINE_CHARS: usize = 64;

/// A certs-only CMC Simple PKI Response, RFC 5272 section 4.1, in base64. It is a
/// set: a reader must not rely on the order.
pub(super) fn certificates_body(certificates: &[CertificateDer<'_>]) -> Result<String, DerError> {
    let certificates = certificates
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()?;
    let der = ContentInfo::try_from(certificates)?.to_der()?;
    Ok(in_lines(&STANDARD.encode(der)))
}

fn in_lines(base64: &str) -> String {
    let mut text = String::with_capacity(base64.len() + base64.len() / LINE_CHARS + 1);
    for (at, character) in base64.char_indices() {
        if at > 0 && at % LINE_CHARS == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use cms::cert::CertificateChoices;
    use cms::signed_data::SignedData;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate.der().clone()
    }

    #[test]
    fn certificates_decode_unchanged() {
        for count in [0, 1, 3] {
            let mut sent: Vec<_> = (0..count)
                .map(|at| certificate(&format!("h{at}")))
                .collect();
            let body = certificates_body(&sent).unwrap();
            assert!(body.lines().all(|line| line.len() <= LINE_CHARS));
            let packed: String = body.split_ascii_whitespace().collect();
            let info = ContentInfo::from_der(&STANDARD.decode(packed).unwrap()).unwrap();
            let data: SignedData = info.content.decode_as().unwrap();
            assert_eq!(data.signer_infos.0.len(), 0);
            assert!(data.encap_content_info.econtent.is_none());
            let got = data.certificates.unwrap().0;
            let mut got: Vec<_> = got
                .iter()
                .map(|choice| match choice {
                    CertificateChoices::Certificate(c) => CertificateDer::from(c.to_der().unwrap()),
                    CertificateChoices::Other(other) => panic!("{other:?}"),
                })
                .collect();
            got.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            sent.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            assert_eq!(got, sent);
        }
    }
}
