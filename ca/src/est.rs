//! The encodings of RFC 7030: a signing request as it comes, certificates as they go.
//!
//! Both bodies are base64 whatever `Content-Transfer-Encoding` says: RFC 8951 section 3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::cert::x509::Certificate;
use cms::cert::x509::der::{Decode, Encode, Error as DerError};
use cms::content_info::ContentInfo;
use lizmon_pki::pem::{self, Kind, PemError};
use rustls_pki_types::CertificateDer;

/// Characters of a line: what every decoder takes, `openssl base64` among them.
const LINE_CHARS: usize = 64;
/// How every DER of ours begins; no base64 of one does.
const DER_SEQUENCE: u8 = 0x30;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What holds no request, or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrFormatError {
    /// Neither PEM nor DER nor base64.
    #[error(
        "there is no signing request in it: it takes PKCS #10 as PEM, as DER, or as the base64 of its DER"
    )]
    Nothing,
    /// PEM of something else.
    #[error("there is no signing request in it, but {0}: it takes a CERTIFICATE REQUEST")]
    Other(String),
    /// PEM that is damaged.
    #[error("the signing request cannot be read")]
    Pem(#[from] PemError),
    /// Which of them?
    #[error("there are {0} signing requests in it: send one")]
    Several(usize),
}

/// The DER of a signing request, from a file or a body: PEM as any tool writes it, DER, or the base64 that RFC 7030 section
/// 4.2.1 wants. Line ends may be missing: curl's `--data` takes them away. What stands beside the request is not looked at.
pub fn read_request(bytes: &[u8]) -> Result<Vec<u8>, CsrFormatError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if bytes.first() == Some(&DER_SEQUENCE) {
        return Ok(bytes.to_vec());
    }
    if bytes
        .windows(PEM_BEGIN.len())
        .any(|window| window == PEM_BEGIN)
    {
        return read_pem(bytes);
    }
    let packed: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    match STANDARD.decode(packed) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(CsrFormatError::Nothing),
    }
}

const PEM_BEGIN: &[u8] = b"-----BEGIN ";

fn read_pem(bytes: &[u8]) -> Result<Vec<u8>, CsrFormatError> {
    let (mut requests, mut others, mut flaw) = (Vec::new(), Vec::new(), None);
    for section in pem::sections(bytes) {
        match section {
            Ok(section) if section.kind == Kind::SigningRequest => requests.push(section.der),
            Ok(section) => others.push(section.label),
            Err(error) => flaw = flaw.or(Some(error)),
        }
    }
    match (requests.len(), flaw) {
        (1, _) => Ok(requests.swap_remove(0)),
        (0, Some(error)) => Err(error.into()),
        (0, None) => Err(CsrFormatError::Other(others.join(", "))),
        (several, _) => Err(CsrFormatError::Several(several)),
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

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key);
        request.unwrap().der().to_vec()
    }

    #[test]
    fn requests_come_in_several_forms() {
        let der = request();
        let base64 = STANDARD.encode(&der);
        let lines = in_lines(&base64);
        let pem = |label: &str, inner: &str| {
            format!("-----BEGIN {label}-----\n{inner}-----END {label}-----\n")
        };
        let plain = pem("CERTIFICATE REQUEST", &lines);
        let key = KeyPair::generate().unwrap().serialize_pem();
        let text = "Certificate Request:\n    Data:\n        Version: 1 (0x0)\n        Subject: CN = web1\n                pub:\n                    04:4b:0c:9e:01:\n";
        let good = [
            base64.clone(),
            lines.clone(),
            lines.replace('\n', "\r\n"),
            format!("  {base64}  "),
            format!("\u{feff}{base64}\n"),
            plain.clone(),
            pem("NEW CERTIFICATE REQUEST", &lines),
            plain.replace('\n', ""),
            plain.replace('\n', "\r\n"),
            plain.trim_end().to_owned(),
            format!("\u{feff}{plain}"),
            format!("{text}{plain}"),
            format!("Bag Attributes\n    friendlyName: web1\n{plain}"),
            format!("{key}{plain}"),
            format!("{plain}{key}"),
        ];
        for body in good {
            assert_eq!(read_request(body.as_bytes()).as_ref(), Ok(&der), "{body}");
        }
        assert_eq!(read_request(&der).as_ref(), Ok(&der));
        let bad: [(Vec<u8>, &str); 10] = [
            (vec![], "there is no signing request"),
            (b" \n".to_vec(), "there is no signing request"),
            (b"hello".to_vec(), "there is no signing request"),
            (
                base64[..base64.len() - 1].into(),
                "there is no signing request",
            ),
            (
                base64.replace(['A', 'B'], "%2B").into(),
                "there is no signing request",
            ),
            (pem("CERTIFICATE", &lines).into(), "but CERTIFICATE"),
            (key.into_bytes(), "but PRIVATE KEY"),
            (pem("CERTIFICATE REQUEST", "").into(), "cannot be read"),
            (plain[..plain.len() - 30].into(), "cannot be read"),
            (format!("{plain}{plain}").into(), "2 signing requests"),
        ];
        for (body, expected) in bad {
            let error = read_request(&body).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
