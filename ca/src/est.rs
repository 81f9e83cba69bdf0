//! The encodings of RFC 7030: a signing request as it comes, certificates as they go.
//!
//! Both bodies are base64 whatever `Content-Transfer-Encoding` says: RFC 8951 section 3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::x509::Certificate;
use cms::cert::x509::der::{Decode, Encode, Error as DerError};
use cms::content_info::ContentInfo;
use rustls_pki_types::CertificateDer;

/// Characters of a line: what every decoder takes, `openssl base64` among them.
const LINE_CHARS: usize = 64;
/// The labels of a PEM request; the second is what older tools write.
const PEM_LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// A body that holds no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not a signing request: send the base64 of its DER, or its PEM")]
pub struct NotARequest;

/// The DER of a request from the base64 that RFC 7030 section 4.2.1 wants, or from PEM, which is what people have. Line
/// ends may be missing: curl's `--data` takes them away.
pub fn read_request(body: &[u8]) -> Result<Vec<u8>, NotARequest> {
    let text = std::str::from_utf8(body).map_err(|_| NotARequest)?.trim();
    let inner = PEM_LABELS.iter().find_map(|label| {
        text.strip_prefix(&*format!("-----BEGIN {label}-----"))?
            .strip_suffix(&*format!("-----END {label}-----"))
    });
    let packed: String = inner.unwrap_or(text).split_ascii_whitespace().collect();
    match STANDARD.decode(packed) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(NotARequest),
    }
}

/// A certs-only CMC Simple PKI Response, RFC 5272 section 4.1, in base64. It is a set: a reader must not go by the order.
pub fn certificates_body(certificates: &[CertificateDer<'_>]) -> Result<String, DerError> {
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
    fn certificates_arrive_as_they_were() {
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

    #[test]
    fn requests_come_in_several_forms() {
        let der: Vec<u8> = (0..200).collect();
        let base64 = STANDARD.encode(&der);
        let lines = in_lines(&base64);
        let pem = |label: &str, inner: &str| {
            format!("-----BEGIN {label}-----\n{inner}-----END {label}-----\n")
        };
        let good = [
            base64.clone(),
            lines.clone(),
            lines.replace('\n', "\r\n"),
            format!("  {base64}  "),
            pem("CERTIFICATE REQUEST", &lines),
            pem("NEW CERTIFICATE REQUEST", &lines),
            pem("CERTIFICATE REQUEST", &lines).replace('\n', ""),
        ];
        for body in good {
            assert_eq!(read_request(body.as_bytes()).as_ref(), Ok(&der), "{body}");
        }
        let bad: [Vec<u8>; 8] = [
            vec![],
            b" \n".to_vec(),
            der,
            b"hello".to_vec(),
            base64[..base64.len() - 1].into(),
            base64.replace(['A', 'B'], "%2B").into(),
            pem("CERTIFICATE", &lines).into(),
            pem("CERTIFICATE REQUEST", "").into(),
        ];
        for body in bad {
            assert_eq!(read_request(&body), Err(NotARequest), "{body:?}");
        }
    }
}
