//! Fingerprints, which identify a root before any server is trusted.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

/// The SHA-256 of a root's DER. Printed as lowercase hex. The OpenSSL format with colons and
/// capital letters is accepted too.
///
/// ```
/// use lizmon_enrol::RootFingerprint;
/// let plain: RootFingerprint = "00ff".repeat(16).parse().unwrap();
/// let openssl: RootFingerprint = ["00:FF"; 16].join(":").parse().unwrap();
/// assert_eq!(plain, openssl);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootFingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a fingerprint: 64 hex digits, the SHA-256 of the root's DER, as lizctl init-ca printed it"
)]
pub struct MalformedFingerprint;

impl RootFingerprint {
    pub(crate) fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

impl FromStr for RootFingerprint {
    type Err = MalformedFingerprint;

    fn from_str(text: &str) -> Result<Self, MalformedFingerprint> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|character| *character != ':')
            .map(|character| {
                character
                    .to_digit(16)
                    .and_then(|digit| digit.try_into().ok())
            })
            .collect();
        let digits = digits.filter(|digits| digits.len() == 64);
        let digits = digits.ok_or(MalformedFingerprint)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for RootFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A list of fingerprints, separated by commas when printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFingerprints(Vec<RootFingerprint>);

impl RootFingerprints {
    pub(crate) fn new(all: Vec<RootFingerprint>) -> Self {
        Self(all)
    }
}

impl fmt::Display for RootFingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_fingerprint() {
        let hex = "0123456789abcdef".repeat(4);
        let cases = [
            (hex.clone(), true),
            (hex.to_uppercase(), true),
            (
                hex.as_bytes()
                    .chunks(2)
                    .map(|pair| format!("{}:", String::from_utf8_lossy(pair)))
                    .collect(),
                true,
            ),
            (hex[1..].to_owned(), false),
            (format!("{hex}0"), false),
            (format!("{}g", &hex[1..]), false),
            (format!(" {hex}"), false),
            (format!("+{}", &hex[1..]), false),
            (String::new(), false),
        ];
        for (text, good) in cases {
            let got = text.parse::<RootFingerprint>();
            assert_eq!(got.is_ok(), good, "{text}");
            if let Ok(got) = got {
                assert_eq!(got.to_string(), hex, "{text}");
            }
        }
    }
}
