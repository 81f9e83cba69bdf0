//! Shapes of PEM files that people have: each is read as it was meant, or refused with its line.

use rcgen::{CertificateParams, KeyPair};

use super::*;

struct Made {
    /// PEM, as OpenSSL would write it.
    a: String,
    b: String,
    key: String,
}

fn made() -> Made {
    let key = KeyPair::generate().unwrap();
    let pem = || {
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().pem().replace('\r', "")
    };
    Made {
        a: pem(),
        b: pem(),
        key: key.serialize_pem().replace('\r', ""),
    }
}

fn ders(text: &str) -> Vec<Vec<u8>> {
    let sections = read(text.as_bytes()).unwrap();
    sections.into_iter().map(|section| section.der).collect()
}

#[test]
fn what_editors_and_cat_do_does_no_harm() {
    let Made { a, b, .. } = made();
    let both = format!("{a}{b}");
    let expected = ders(&both);
    assert_eq!(expected.len(), 2);
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect();
    let cases: Vec<(&str, String)> = vec![
        ("CRLF", both.replace('\n', "\r\n")),
        ("CR alone", both.replace('\n', "\r")),
        ("byte order mark", format!("\u{feff}{both}")),
        (
            "each with its byte order mark",
            format!("\u{feff}{a}\u{feff}{b}"),
        ),
        (
            "no newline between them",
            format!("{}{}", a.trim(), b.trim()),
        ),
        (
            "no newline, and a byte order mark",
            format!("{}\u{feff}{}", a.trim(), b.trim()),
        ),
        ("no line ends at all", both.replace('\n', "")),
        ("indented", indented(&both)),
        ("trailing blanks", both.replace('\n', " \t\n")),
        ("leading empty lines", format!("\n\r\n \n{both}")),
        (
            "comments",
            format!("# Office root, front-end key\n=========\n{a}\n# The other one\n{b}\u{1a}"),
        ),
        (
            "as openssl x509 -text writes it",
            format!(
                "Certificate:\n    Data:\n        Version: 3 (0x2)\n    Signature Value:\n        30:45:02:21:00\n\
                 serial=0D03AB\nModulus=C0FFEE00C0FFEE00C0FFEE00C0FFEE00C0FFEE00C0FFEE00C0FFEE00\n{a}\
                 subject=CN = B\u{fc}ro\n0d03ab0d03ab0d03ab0d03ab0d03ab0d03ab0d03ab0d03ab0d03ab0d03ab0d03\n{b}---\n"
            ),
        ),
        (
            "OpenSSL's older label",
            both.replace("CERTIFICATE", "X509 CERTIFICATE"),
        ),
    ];
    for (story, text) in cases {
        assert_eq!(ders(&text), expected, "{story}");
        let found = certificates(text.as_bytes()).unwrap();
        assert_eq!(found.len(), 2, "{story}");
    }
}

#[test]
fn text_that_is_passed_over_is_found() {
    let Made { a, b, .. } = made();
    let (of_a, of_both) = (a.lines().count(), a.lines().count() + b.lines().count());
    let cases: [(&str, String, Vec<usize>); 8] = [
        ("none", format!("{a}{b}"), vec![]),
        ("blank lines", format!("\n \n{a}\n\t\r\n{b}\n\n"), vec![]),
        (
            "what editors leave",
            format!("\u{feff}{a}\u{feff}{b}\u{1a}"),
            vec![],
        ),
        (
            "before",
            format!("# Office\n\nCertificate:\n{a}{b}"),
            vec![1, 3],
        ),
        (
            "between",
            format!("{a}subject=CN = B\u{fc}ro\n{b}"),
            vec![of_a + 1],
        ),
        ("behind", format!("{a}{b}the end"), vec![of_both + 1]),
        (
            "by carriage returns",
            format!("x\r{a}y\r\n{b}").replace('\n', "\r"),
            vec![1, of_a + 2],
        ),
        ("no section", "a\nb\n".to_owned(), vec![1, 2]),
    ];
    for (story, text, expected) in cases {
        assert_eq!(text_outside(text.as_bytes()), expected, "{story}");
    }
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let Made { a, b, key } = made();
    let lines: Vec<&str> = a.lines().collect();
    // The line that `b` begins in when it stands behind `a`, and the last one of both.
    let (second, last) = (lines.len() + 1, lines.len() + b.lines().count());
    let cut = |text: &str, lines: usize| -> String {
        let kept = text.lines().count() - lines;
        text.lines()
            .take(kept)
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let with = |from: &str, to: &str| format!("{a}{}", b.replacen(from, to, 1));
    let cases: Vec<(&str, Vec<u8>, usize, &str)> = vec![
        (
            "no last line",
            (a.clone() + &cut(&b, 1)).into(),
            second,
            "does not end",
        ),
        (
            "cut in half",
            (a.clone() + &cut(&b, 4)).into(),
            second,
            "does not end",
        ),
        (
            "no last line, and another behind it",
            (cut(&a, 1) + &b).into(),
            1,
            "does not end",
        ),
        (
            "four dashes in front",
            with("-----BEGIN", "----BEGIN").into(),
            second,
            "five dashes",
        ),
        (
            "four dashes behind",
            with("CERTIFICATE-----", "CERTIFICATE----").into(),
            second,
            "five dashes",
        ),
        (
            "dashes of a word processor",
            with("-----BEGIN", "\u{2014}\u{2014}-BEGIN").into(),
            second,
            "five dashes",
        ),
        (
            "lower case",
            with("BEGIN CERTIFICATE", "begin certificate").into(),
            second,
            "five dashes",
        ),
        (
            "no dashes",
            with("-----BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE").into(),
            second,
            "five dashes",
        ),
        (
            "a blank too many",
            with("-----BEGIN", "----- BEGIN").into(),
            second,
            "five dashes",
        ),
        (
            "no first line",
            with("-----BEGIN CERTIFICATE-----\n", "").into(),
            second,
            "base64 outside a section",
        ),
        (
            "another last line",
            with("-----END CERTIFICATE", "-----END X509 CRL").into(),
            last,
            "ends as",
        ),
        (
            "a last line of four dashes",
            with("-----END CERTIFICATE-----", "-----END CERTIFICATE----").into(),
            second,
            "does not end",
        ),
        (
            "a key's inside",
            format!("{a}{key}")
                .replacen("CERTIFICATE", "TRUSTED CERTIFICATE", 2)
                .into(),
            1,
            "TRUSTED",
        ),
        (
            "commented out",
            format!(
                "{a}{}",
                b.lines()
                    .map(|line| format!("# {line}\n"))
                    .collect::<String>()
            )
            .into(),
            second + 1,
            "not base64",
        ),
        (
            "zeroes behind it",
            [a.as_bytes(), &[0; 512]].concat(),
            second,
            "not text",
        ),
        (
            "UTF-16 inside",
            [a.as_bytes(), &b"s\0u\0b\0"[..]].concat(),
            second,
            "not text",
        ),
        (
            "a line lost",
            format!("{a}{}", b.replacen(b.lines().nth(2).unwrap(), "", 1)).into(),
            second,
            "cut short",
        ),
        (
            "a letter changed",
            with("MII", "M!I").into(),
            second + 1,
            "not base64",
        ),
        (
            "text on its first line",
            with("CERTIFICATE-----\n", "CERTIFICATE----- two\n").into(),
            last - 1,
            "",
        ),
    ];
    for (story, text, line, why) in cases {
        let error = read(&text).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("line {line}: ")),
            "{story}: {error}"
        );
        assert!(error.contains(why), "{story}: {error}");
    }
}

#[test]
fn other_encodings_are_named() {
    let text = made().a;
    let wide = |bytes: fn(u16) -> [u8; 2], mark: bool| -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        mark.into_iter()
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect()
    };
    for mark in [true, false] {
        for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(&wide(bytes, mark)), Err(PemError::Utf16));
        }
    }
    let der = ders(&text).remove(0);
    assert_eq!(read(&der), Err(PemError::Der));
}

#[test]
fn a_section_of_another_kind_is_named() {
    let Made { a, b, key } = made();
    let list = a.replace("CERTIFICATE", "X509 CRL");
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let pair = format!("{a}{b}{parameters}{key}");
    assert_eq!(certificates(pair.as_bytes()).unwrap().len(), 2);
    assert!(private_key(pair.as_bytes()).is_ok());
    let encrypted = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,A0\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let cases: [(&str, String, &str); 7] = [
        (
            "no certificate",
            key.clone(),
            "there is no certificate in it",
        ),
        ("no key", a.clone(), "there is no private key in it"),
        ("nothing", String::new(), "there is no certificate in it"),
        (
            "text alone",
            "hello\n".to_owned(),
            "there is no certificate in it",
        ),
        (
            "a list",
            format!("{a}{list}{key}"),
            "X509 CRL does not belong here",
        ),
        ("two keys", format!("{key}{key}"), "a second private key"),
        (
            "encrypted",
            encrypted.to_owned(),
            "line 1: the private key is encrypted",
        ),
    ];
    for (story, text, why) in cases {
        let found = [
            certificates(text.as_bytes()).map(|_| ()),
            private_key(text.as_bytes()).map(|_| ()),
        ];
        let errors = found.map(|found| {
            found
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        });
        assert!(
            errors.iter().any(|error| error.contains(why)),
            "{story}: {errors:?}"
        );
    }
}

/// Whoever goes on past a broken section gets the others, and is told of each that is wrong.
#[test]
fn what_is_broken_hides_nothing_behind_it() {
    let Made { a, b, key } = made();
    let cut: String = a.lines().take(4).map(|line| format!("{line}\n")).collect();
    let text = format!("{cut}{b}----BEGIN X\n{key}{}", b.replacen("MII", "M!I", 1));
    let mut found = (0, 0);
    for section in sections(text.as_bytes()) {
        match section {
            Ok(section) => {
                found.0 += 1;
                assert!(
                    text[section.span.clone()]
                        .starts_with(&format!("-----BEGIN {}", section.label))
                );
                assert!(text[section.span].ends_with("-----"));
            }
            Err(_) => found.1 += 1,
        }
    }
    assert_eq!(found, (2, 3));
}

proptest::proptest! {
    /// No bytes make it panic or go on for ever, and none are passed over: a text without a section
    /// is nothing but text.
    #[test]
    fn any_bytes(text in "(-----(BEGIN|END) (CERTIFICATE|X509 CRL)-----|[ -~]|\r|\n|\u{feff}|MIIB){0,40}") {
        let found: Vec<_> = sections(text.as_bytes()).take(100).collect();
        proptest::prop_assert!(found.len() < 100);
    }
}
