//! One section: its first line, its base64, its last line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;

use super::error::PemError;
use super::outside::{boundary, line_ends, lines};

pub(super) const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// Longer than any name that is used.
const LABEL_BYTES_MAX: usize = 64;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a section holds, by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemKind {
    /// `CERTIFICATE`, and OpenSSL's older `X509 CERTIFICATE`.
    Certificate,
    /// `X509 CRL`.
    Crl,
    /// `CERTIFICATE REQUEST`, and the older `NEW CERTIFICATE REQUEST`.
    SigningRequest,
    /// `PRIVATE KEY`: PKCS#8.
    Pkcs8Key,
    /// `RSA PRIVATE KEY`: PKCS#1.
    Pkcs1Key,
    /// `EC PRIVATE KEY`: SEC1.
    Sec1Key,
    /// A key that cannot be used without a passphrase, PKCS#8's or OpenSSL's older form.
    EncryptedKey,
    /// `EC PARAMETERS`, `DH PARAMETERS`: OpenSSL writes them before a key. They say nothing that is
    /// not in the key.
    Parameters,
    /// Anything else.
    Other,
}

impl PemKind {
    fn of(label: &str) -> Self {
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => Self::Certificate,
            "X509 CRL" => Self::Crl,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::SigningRequest,
            "PRIVATE KEY" => Self::Pkcs8Key,
            "RSA PRIVATE KEY" => Self::Pkcs1Key,
            "EC PRIVATE KEY" => Self::Sec1Key,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "EC PARAMETERS" | "DH PARAMETERS" => Self::Parameters,
            _ => Self::Other,
        }
    }

    /// Whether it is a private key, encrypted or not.
    pub fn is_private_key(self) -> bool {
        matches!(
            self,
            Self::Pkcs8Key | Self::Pkcs1Key | Self::Sec1Key | Self::EncryptedKey
        )
    }
}

/// One section of a PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is called in the text.
    pub label: String,
    /// What that means.
    pub kind: PemKind,
    /// The line it begins in, from 1.
    pub line: usize,
    /// Its position in the text, its first and last line included: bytes.
    pub span: std::ops::Range<usize>,
    /// One whole DER value. Of a key in OpenSSL's older encrypted form, what came out of its
    /// base64.
    pub der: Vec<u8>,
}

impl Section {
    /// The error that it does not belong where `wanted` does.
    pub fn misplaced(&self, wanted: &'static str) -> PemError {
        PemError::Misplaced {
            line: self.line,
            label: self.label.clone(),
            wanted,
        }
    }

    /// The private key in it.
    pub fn into_private_key(self) -> Result<PrivateKeyDer<'static>, PemError> {
        match self.kind {
            PemKind::Pkcs8Key => Ok(PrivateKeyDer::Pkcs8(self.der.into())),
            PemKind::Pkcs1Key => Ok(PrivateKeyDer::Pkcs1(self.der.into())),
            PemKind::Sec1Key => Ok(PrivateKeyDer::Sec1(self.der.into())),
            PemKind::EncryptedKey => Err(PemError::Encrypted { line: self.line }),
            _ => Err(self.misplaced("private key")),
        }
    }
}

/// Omits the content: that may be a key.
impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at line {}", self.label, self.line)
    }
}

/// The section that a text begins with, at this line and byte of the whole, and how many bytes were
/// read: past it, or past what is wrong with it.
pub(super) fn read(text: &[u8], line: usize, at: usize) -> (Result<Section, PemError>, usize) {
    let Some((label, inside_at)) = label(text, BEGIN) else {
        let shown = lines(text).next().unwrap_or_default();
        return (Err(boundary(shown, line)), BEGIN.len());
    };
    let Some(length) = find(&text[inside_at..], DASHES) else {
        return (Err(PemError::NoEnd { line, label }), text.len());
    };
    let end_at = inside_at + length;
    let Some((end, end_length)) = self::label(&text[end_at..], END) else {
        // Another BEGIN is read on its own; any other dashes are skipped with the section they
        // broke.
        let is_next = text[end_at..].starts_with(BEGIN);
        let read = end_at + if is_next { 0 } else { DASHES.len() };
        return (Err(PemError::NoEnd { line, label }), read);
    };
    let length = end_at + end_length;
    if end != label {
        let line = line + line_ends(text, end_at);
        let begin = label;
        return (Err(PemError::Labels { line, begin, end }), length);
    }
    let inside = Inside {
        text: &text[inside_at..end_at],
        line: line + line_ends(text, inside_at),
    };
    let section = section(label, line, inside).map(|mut section| {
        section.span = at..at + length;
        section
    });
    (section, length)
}

/// The lines between the first and the last one.
struct Inside<'a> {
    text: &'a [u8],
    line: usize,
}

/// The label between `start` and five dashes, and where those end.
fn label(text: &[u8], start: &[u8]) -> Option<(String, usize)> {
    let behind = text.strip_prefix(start)?;
    let end = find(&behind[..behind.len().min(LABEL_BYTES_MAX)], DASHES)?;
    let label = std::str::from_utf8(&behind[..end]).ok()?;
    let is_label = !label.is_empty()
        && label.trim() == label
        && label.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    is_label.then(|| (label.to_owned(), start.len() + end + DASHES.len()))
}

fn section(label: String, line: usize, inside: Inside<'_>) -> Result<Section, PemError> {
    if label == "TRUSTED CERTIFICATE" {
        return Err(PemError::TrustedCertificate { line });
    }
    let mut kind = PemKind::of(&label);
    let body = match headers(inside.text) {
        // RFC 1421: only keys of OpenSSL's older encrypted form have any.
        Some(length) if kind.is_private_key() => {
            kind = PemKind::EncryptedKey;
            Inside {
                text: &inside.text[length..],
                line: inside.line + line_ends(inside.text, length),
            }
        }
        _ => inside,
    };
    let der = decode(body, &label)?;
    let is_older_encrypted_form = kind == PemKind::EncryptedKey && label != "ENCRYPTED PRIVATE KEY";
    if !is_older_encrypted_form && kind != PemKind::Other && !is_one_der_value(&der) {
        return Err(PemError::NotDer { line, label });
    }
    Ok(Section {
        label,
        kind,
        line,
        span: 0..0,
        der,
    })
}

/// How many bytes of headers there are, the empty line behind them included.
fn headers(inside: &[u8]) -> Option<usize> {
    let starts = inside.trim_ascii_start();
    if !starts.starts_with(b"Proc-Type:") {
        return None;
    }
    let skipped = inside.len() - starts.len();
    let blank = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
    let behind = |blank: &&[u8]| Some(find(starts, blank)? + blank.len());
    blank.iter().filter_map(behind).min().map(|at| skipped + at)
}

fn decode(inside: Inside<'_>, label: &str) -> Result<Vec<u8>, PemError> {
    let (body, first_line) = (inside.text, inside.line);
    let not_base64 = |line: usize| PemError::Base64 {
        line,
        label: label.to_owned(),
    };
    let mut packed = Vec::with_capacity(body.len());
    for (at, line) in lines(body).enumerate() {
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let is_in_alphabet =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let kept = packed.len();
        packed.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        if !packed[kept..].iter().all(is_in_alphabet) {
            return Err(not_base64(first_line + at));
        }
    }
    let last_line = first_line + lines(body.trim_ascii_end()).count().saturating_sub(1);
    let der = STANDARD.decode(&packed);
    der.map_err(|_| not_base64(last_line))
}

/// A SEQUENCE that is as long as it says, X.690 sections 8.1.3 and 10.1. Everything that sections
/// hold is one, but for parameters, which may be an OBJECT IDENTIFIER.
fn is_one_der_value(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let [SEQUENCE | OBJECT_IDENTIFIER, first, rest @ ..] = der else {
        return false;
    };
    let length = match first {
        0..=0x7f => Some((usize::from(*first), rest)),
        0x81..=0x84 => rest
            .split_at_checked(usize::from(first - 0x80))
            .map(|(bytes, rest)| {
                let add = |length: usize, byte: &u8| length << 8 | usize::from(*byte);
                (bytes.iter().fold(0, add), rest)
            }),
        _ => None,
    };
    length.is_some_and(|(length, value)| length == value.len())
}

/// Where `wanted` begins in `bytes`.
pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
