//! The one reader of PEM (RFC 7468): nothing is skipped in silence.
//!
//! What yields no section is an error that says its line, but for text between sections as OpenSSL
//! and people write it: in that, nothing may look like a part of a section. What editors and `cat`
//! do to files does no harm: byte order marks, any kind of line end or none at all, blanks around
//! lines, no newline at the end.
//!
//! `rustls-pki-types` and `pem` read PEM too, and are not used for it: both skip what does not
//! look like a section to them, and a skipped root or CRL would go unnoticed.

mod error;
mod outside;
mod section;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use self::error::PemError;
use self::section::find;
pub use self::section::{PemKind, Section};

/// Every section of a text, in order. The first thing that is wrong is the error.
pub fn read(bytes: &[u8]) -> Result<Vec<Section>, PemError> {
    sections(bytes).collect()
}

/// Every section of a text, and every thing that is wrong with it, in order: for callers that
/// continue after a broken part.
pub fn sections(bytes: &[u8]) -> Sections<'_> {
    Sections {
        rest: bytes,
        at: 0,
        line: 1,
        encoding: outside::encoding(bytes).err(),
    }
}

/// The lines outside of sections that hold text, as OpenSSL's `-text` and people write it:
/// harmless, and ignored.
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

/// The certificates of a text, at least one. Keys and parameters may be beside them, nothing else.
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

/// The one private key of a text, not encrypted. Certificates and parameters may be beside it,
/// nothing else.
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

#[cfg(test)]
mod tests;
