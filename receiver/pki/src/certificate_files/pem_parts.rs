//! Replaces parts of a PEM file in place, and keeps the rest of the file. Pure.

use std::ops::Range;

use crate::atomic_file::Access;
use crate::pem::{self, PemError, PemKind, Section};
use rustls_pki_types::CertificateDer;

/// A new chain and its key, both PEM.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewPair<'a> {
    pub(super) chain_pem: &'a str,
    pub(super) key_pem: &'a str,
}

/// The parts that a file must contain after the edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemParts {
    Chain,
    Key,
    Both,
}

/// Returns the file with its certificates replaced by the new chain, and its keys by the new key. A
/// wanted part that is missing is appended. If the file cannot be parsed, its contents are dropped.
pub(super) fn with_pair(file: &[u8], pair: NewPair<'_>, wanted: PemParts) -> Vec<u8> {
    let (file, sections) = match pem::read(file) {
        Ok(sections) => (file, sections),
        Err(_) => (&[][..], Vec::new()),
    };
    let certificates = spans(&sections, |section| section.kind == PemKind::Certificate);
    let keys = spans(&sections, |section| {
        section.kind.is_private_key() || section.kind == PemKind::Parameters
    });
    let lacks_chain = certificates.is_empty() && wanted != PemParts::Key;
    let lacks_key = keys.is_empty() && wanted != PemParts::Chain;
    let mut edits = replaced(file, certificates, pair.chain_pem);
    edits.extend(replaced(file, keys, pair.key_pem));
    let mut new = edited(file, edits);
    let lacking = [(lacks_chain, pair.chain_pem), (lacks_key, pair.key_pem)];
    for (_, text) in lacking.into_iter().filter(|(lacks, _)| *lacks) {
        end_the_line(&mut new);
        new.extend_from_slice(text.as_bytes());
    }
    new
}

/// Returns the file with exactly these certificates. Other sections are kept.
pub fn with_certificates(
    file: &[u8],
    wanted: &[CertificateDer<'static>],
    to_pem: impl Fn(&[CertificateDer<'static>]) -> String,
) -> Result<Vec<u8>, PemError> {
    let sections = pem::read(file)?;
    let is_there = |wanted: &CertificateDer<'_>| {
        let same = |section: &Section| section.der == wanted.as_ref();
        sections.iter().any(same)
    };
    let new: Vec<_> = wanted
        .iter()
        .filter(|der| !is_there(der))
        .cloned()
        .collect();
    let unwanted = spans(&sections, |section| {
        section.kind == PemKind::Certificate && wanted.iter().all(|der| der.as_ref() != section.der)
    });
    // New certificates go before the first old one, so that they keep their place among the other
    // sections.
    let is_certificate = |section: &&Section| section.kind == PemKind::Certificate;
    let place = sections.iter().find(is_certificate);
    let place = place.map_or(file.len(), |first| first.span.start);
    let new = to_pem(&new);
    let mut edits: Vec<_> = unwanted.into_iter().map(|span| (span, "")).collect();
    edits.push((place..place, new.as_str()));
    Ok(edited(file, edits))
}

/// The permissions for a file with these contents.
pub fn access(file: &[u8]) -> Access {
    let is_key =
        |section: Result<Section, PemError>| section.is_ok_and(|found| found.kind.is_private_key());
    match pem::sections(file).any(is_key) {
        true => Access::Secret,
        false => Access::Public,
    }
}

fn spans(sections: &[Section], is_wanted: impl Fn(&Section) -> bool) -> Vec<Range<usize>> {
    let wanted = sections.iter().filter(|section| is_wanted(section));
    wanted.map(|section| section.span.clone()).collect()
}

/// Replaces the first of these spans with the text, and removes the others. Spans with only blank
/// lines between them count as one. Otherwise each renewal would add blank lines.
fn replaced<'t>(
    file: &[u8],
    spans: Vec<Range<usize>>,
    text: &'t str,
) -> Vec<(Range<usize>, &'t str)> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match runs.last_mut() {
            Some(last) if file[last.end..span.start].trim_ascii().is_empty() => last.end = span.end,
            _ => runs.push(span),
        }
    }
    let texts = std::iter::once(text).chain(std::iter::repeat(""));
    runs.into_iter().zip(texts).collect()
}

/// Applies the edits to the file.
fn edited(file: &[u8], mut edits: Vec<(Range<usize>, &str)>) -> Vec<u8> {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let mut new = Vec::with_capacity(file.len());
    let mut at = 0;
    for (span, text) in edits {
        new.extend_from_slice(&file[at..span.start]);
        end_the_line(&mut new);
        new.extend_from_slice(text.as_bytes());
        at = span.end;
        if span.is_empty() {
            continue;
        }
        // Drop the line end of the section: the replacement has its own.
        if file[at..].starts_with(b"\r\n") {
            at += 2;
        } else if file[at..].starts_with(b"\n") {
            at += 1;
        }
    }
    new.extend_from_slice(&file[at..]);
    new
}

fn end_the_line(text: &mut Vec<u8>) {
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// One complete DER value, a SEQUENCE with an INTEGER. Enough for a section.
    fn der(number: u8) -> [u8; 5] {
        [0x30, 3, 2, 1, number]
    }

    fn section(label: &str, number: u8) -> String {
        let inside = STANDARD.encode(der(number));
        format!("-----BEGIN {label}-----\n{inside}\n-----END {label}-----\n")
    }

    #[test]
    fn a_pair_is_replaced_where_it_stands() {
        let (cert, issuing) = (section("CERTIFICATE", 1), section("CERTIFICATE", 2));
        let (key, old_key) = (section("PRIVATE KEY", 3), section("EC PRIVATE KEY", 4));
        let parameters = section("EC PARAMETERS", 5);
        let new = section("CERTIFICATE", 11) + &section("CERTIFICATE", 12);
        let new_key = section("PRIVATE KEY", 13);
        let pair = NewPair {
            chain_pem: &new,
            key_pem: &new_key,
        };
        let check_for = |wanted, old: &str, expected: String| {
            let got = with_pair(old.as_bytes(), pair, wanted);
            assert_eq!(
                String::from_utf8(got).unwrap(),
                expected,
                "{wanted:?} {old}"
            );
        };
        let check = |old: &str, expected| check_for(PemParts::Chain, old, expected);
        let both = format!("{new}{new_key}");
        check("", new.clone());
        check(&cert, new.clone());
        check(&format!("{cert}{issuing}"), new.clone());
        check(&format!("{cert}{key}"), both.clone());
        check(&format!("{key}{cert}"), format!("{new_key}{new}"));
        check(&format!("{cert}{key}{issuing}"), both.clone());
        check(&format!("{cert}{parameters}{old_key}"), both.clone());
        check(
            &format!("subject=web1\n{cert}\n# the key\n{key}# end"),
            format!("subject=web1\n{new}\n# the key\n{new_key}# end"),
        );
        check(&format!("{cert}\n{issuing}"), new.clone());
        check(&format!("{cert}\r\n\r\n{issuing}"), new.clone());
        check(cert.trim_end(), new.clone());
        check(&format!("{cert}{key}").replace('\n', "\r\n"), both.clone());
        let half = cert.replace("-----END CERTIFICATE-----\n", "");
        check(&half, new.clone());
        for old in ["", &key, &old_key, &half] {
            check_for(PemParts::Key, old, new_key.clone());
        }
        check_for(PemParts::Both, "", both.clone());
        check_for(PemParts::Both, &key, format!("{new_key}{new}"));
        check_for(PemParts::Both, &cert, both);
    }

    #[test]
    fn roots_that_cannot_be_read_are_not_written_over() {
        let half = section("CERTIFICATE", 1).replace("-----END CERTIFICATE-----\n", "");
        assert!(with_certificates(half.as_bytes(), &[], |_| String::new()).is_err());
    }

    #[test]
    fn certificates_come_and_go_and_the_rest_stays() {
        let to_pem = |certificates: &[CertificateDer<'static>]| -> String {
            let text = certificates
                .iter()
                .map(|der| section("CERTIFICATE", der[4]));
            text.collect()
        };
        let check = |old: String, wanted: &[u8], expected: String| {
            let certificate = |number: &u8| CertificateDer::from(der(*number).to_vec());
            let wanted: Vec<_> = wanted.iter().map(certificate).collect();
            let got = with_certificates(old.as_bytes(), &wanted, to_pem).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), expected);
        };
        let cert = |number| section("CERTIFICATE", number);
        check(String::new(), &[1, 2], cert(1) + &cert(2));
        check(cert(1), &[1, 2], cert(2) + &cert(1));
        check(cert(1) + &cert(2), &[2], cert(2));
        let key = section("PRIVATE KEY", 9);
        check(
            format!("# ours\n{}{key}# end\n", cert(1)),
            &[2],
            format!("# ours\n{}{key}# end\n", cert(2)),
        );
    }
}
