//! The one reader of PEM (RFC 7468): nothing is skipped in silence.
//!
//! What yields no section is an error that says its line, but for text between sections as OpenSSL and people write it:
//! in that, nothing may look like a part of a section. What editors and `cat` do to files does no harm: byte order marks,
//! any kind of line end or none at all, blanks around lines, no newline at the end.
//!
//! `rustls-pki-types` and `pem` read PEM too, and are not used for it: both pass over what does not look like a section to
//! them, and a root or a revocation list that is passed over is missed by nobody.

mod outside;
mod section;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use self::section::{PemKind, Section};

/// What is wrong with a PEM text, and where. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Text of another encoding.
    #[error("it is UTF-16: save it as plain text, UTF-8 or ASCII")]
    Utf16,
    /// DER where PEM belongs.
    #[error(
        "it is DER and not PEM: convert it, with `openssl x509 -inform DER`, `openssl crl -inform DER` or `openssl pkey -inform DER`"
    )]
    Der,
    /// Bytes that are no text, as a crash or a bad copy leaves them.
    #[error("line {line}: there are bytes that are no text: copy it again")]
    NotText {
        /// Where.
        line: usize,
    },
    /// A line between sections that looks like the first or last line of one.
    #[error(
        "line {line}: `{text}` looks like the first or last line of a section, and is none: it takes exactly five dashes on both sides"
    )]
    Boundary {
        /// Where.
        line: usize,
        /// What stands there, cut short.
        text: String,
    },
    /// A line between sections that looks like the inside of one.
    #[error("line {line}: base64 that belongs to no section: is a line above or below it lost?")]
    Stray {
        /// Where.
        line: usize,
    },
    /// A section that begins and does not end.
    #[error("line {line}: the section {label} begins here and does not end: copy it again")]
    NoEnd {
        /// Where it begins.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// A section that begins as one thing and ends as another.
    #[error("line {line}: the section {begin} ends as {end}")]
    Labels {
        /// Where it ends.
        line: usize,
        /// How it begins.
        begin: String,
        /// How it ends.
        end: String,
    },
    /// A section whose inside is not base64.
    #[error("line {line}: the section {label} is not base64 here: copy it again")]
    Base64 {
        /// Where.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// A section that does not hold one whole DER value.
    #[error("line {line}: the section {label} is damaged or cut short: copy it again")]
    NotDer {
        /// Where it begins.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// OpenSSL's own form of a certificate, with trust settings that would be lost.
    #[error(
        "line {line}: TRUSTED CERTIFICATE is a form of OpenSSL's own: write it as CERTIFICATE, with `openssl x509`"
    )]
    TrustedCertificate {
        /// Where it begins.
        line: usize,
    },
    /// A key under a passphrase that nobody could enter.
    #[error(
        "line {line}: the private key is encrypted: take the passphrase away, with `openssl pkey`"
    )]
    Encrypted {
        /// Where it begins.
        line: usize,
    },
    /// A section that does not belong here.
    #[error("line {line}: {label} does not belong here, this should hold {wanted}")]
    Misplaced {
        /// Where it begins.
        line: usize,
        /// What it is called.
        label: String,
        /// What belongs here.
        wanted: &'static str,
    },
    /// No section of the wanted kind.
    #[error("there is no {wanted} in it: it should hold PEM text that starts with -----BEGIN")]
    Absent {
        /// What belongs here.
        wanted: &'static str,
    },
    /// More than one section where one belongs.
    #[error("line {line}: a second {wanted}, and which one counts is not said: leave one")]
    Second {
        /// Where it begins.
        line: usize,
        /// What belongs here once.
        wanted: &'static str,
    },
}

/// Every section of a text, in order. The first thing that is wrong is the error.
pub fn read(bytes: &[u8]) -> Result<Vec<Section>, PemError> {
    sections(bytes).collect()
}

/// Every section of a text, and every thing that is wrong with it, in order: for whoever goes on past a broken part.
pub fn sections(bytes: &[u8]) -> Sections<'_> {
    Sections {
        rest: bytes,
        at: 0,
        line: 1,
        encoding: outside::encoding(bytes).err(),
    }
}

/// The lines outside of sections that hold text, as OpenSSL's `-text` and people write it: harmless, and passed over.
pub fn text_outside(bytes: &[u8]) -> Vec<usize> {
    let (mut rest, mut line) = (bytes, 1);
    let mut found = Vec::new();
    loop {
        let begin = find(rest, section::BEGIN);
        let (outside, inside) = rest.split_at(begin.unwrap_or(rest.len()));
        let is_text = |(_, text): &(usize, &[u8])| !outside::is_blank(text);
        let lines = outside::lines(outside).enumerate().filter(is_text);
        found.extend(lines.map(|(at, _)| line + at));
        line += outside::line_ends(rest, outside.len());
        if begin.is_none() {
            return found;
        }
        let (_, length) = section::read(inside, line, 0);
        line += outside::line_ends(inside, length);
        rest = &inside[length..];
    }
}

/// The certificates of a text, at least one. Keys and parameters may stand beside them, nothing else.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    const WANTED: &str = "certificate";
    let mut found = Vec::new();
    for section in read(bytes)? {
        match section.kind {
            PemKind::Certificate => found.push(section.der.into()),
            kind if kind.is_private_key() || kind == PemKind::Parameters => (),
            _ => return Err(section.misplaced(WANTED)),
        }
    }
    match found.is_empty() {
        true => Err(PemError::Absent { wanted: WANTED }),
        false => Ok(found),
    }
}

/// The one private key of a text, not encrypted. Certificates and parameters may stand beside it, nothing else.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    const WANTED: &str = "private key";
    let mut found = None;
    for section in read(bytes)? {
        match section.kind {
            PemKind::Certificate | PemKind::Parameters => (),
            kind if !kind.is_private_key() => return Err(section.misplaced(WANTED)),
            _ if found.is_some() => {
                let (line, wanted) = (section.line, WANTED);
                return Err(PemError::Second { line, wanted });
            }
            _ => found = Some(section.into_private_key()?),
        }
    }
    found.ok_or(PemError::Absent { wanted: WANTED })
}

/// See [`sections`].
#[derive(Debug)]
pub struct Sections<'a> {
    rest: &'a [u8],
    /// Where that begins in the text: bytes.
    at: usize,
    /// The number of its first line.
    line: usize,
    /// What is wrong with all of it.
    encoding: Option<PemError>,
}

impl Sections<'_> {
    fn advance(&mut self, bytes: usize) {
        self.line += outside::line_ends(self.rest, bytes);
        self.at += bytes;
        self.rest = &self.rest[bytes..];
    }
}

impl Iterator for Sections<'_> {
    type Item = Result<Section, PemError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.encoding.take() {
            self.rest = &[];
            return Some(Err(error));
        }
        let begin = find(self.rest, section::BEGIN);
        let outside = &self.rest[..begin.unwrap_or(self.rest.len())];
        let checked = outside::check(outside, self.line);
        self.advance(outside.len());
        if let Err(error) = checked {
            // Said once; what stands behind it is still looked at.
            return Some(Err(error));
        }
        begin?;
        let (read, length) = section::read(self.rest, self.line, self.at);
        self.advance(length);
        Some(read)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests;
