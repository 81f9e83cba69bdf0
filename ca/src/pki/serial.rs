//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

use super::random::{RandomError, fill_random};

/// A certificate's serial number: 16 random bytes, positive, none of them a leading zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A new one. RFC 5280 section 4.1.2.2 wants it positive and at most 20 bytes.
    pub(crate) fn random() -> Result<Self, RandomError> {
        loop {
            let mut bytes = [0; 16];
            fill_random(&mut bytes)?;
            bytes[0] &= 0x7f;
            if bytes[0] != 0 {
                return Ok(Self(bytes));
            }
        }
    }

    /// The number, big-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    /// Hex as [`Display`](fmt::Display) writes it, or as other programs do: in capitals, with
    /// colons or blanks, after `0x` or `serial=`, with leading zeros or without.
    fn from_str(text: &str) -> Result<Self, SerialError> {
        let malformed = || SerialError(text.escape_debug().take(80).collect());
        let is_between = |c: char| c == ':' || c == '-' || c.is_ascii_whitespace();
        let packed = text.trim().to_ascii_lowercase();
        let packed = packed.strip_prefix("serial=").unwrap_or(&packed);
        let packed = packed.strip_prefix("0x").unwrap_or(packed);
        let digits = packed.replace(is_between, "");
        if digits.is_empty() {
            return Err(malformed());
        }
        let digits = digits.trim_start_matches('0');
        let mut bytes = [0; 16];
        let padded = format!("{digits:0>width$}", width = 2 * bytes.len());
        hex::decode_to_slice(padded, &mut bytes).map_err(|_| malformed())?;
        Ok(Self(bytes))
    }
}

/// Text that is no serial number of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a certificate serial number: give at most 32 hex digits")]
pub struct SerialError(String);

/// Without the zero byte that DER puts before a positive number whose first bit is set.
pub(crate) fn strip_sign(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_positive_and_full() {
        for _ in 0..1000 {
            let serial = Serial::random().unwrap();
            assert!((1..=0x7f).contains(&serial.as_bytes()[0]), "{serial}");
            assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }
        for bad in ["", "zz", "0x", "::", &"1".repeat(34), "12 g4"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serials_are_read_as_other_programs_print_them() {
        const PLAIN: &str = "0d03f0e6a0c7a3b4c5d8e9f00112233a";
        let spaced = |separator: &str| {
            let pairs = PLAIN.as_bytes().chunks(2);
            let pairs: Vec<_> = pairs
                .map(|pair| std::str::from_utf8(pair).unwrap())
                .collect();
            pairs.join(separator)
        };
        let cases = [
            PLAIN.to_owned(),
            PLAIN.to_uppercase(),
            // openssl x509 -text, with and without its indentation; -serial; certtool; Windows;
            // Python's hex().
            spaced(":").to_uppercase(),
            format!("                {}\n", spaced(":")),
            format!("serial={}", PLAIN.to_uppercase()),
            spaced(" "),
            spaced("-"),
            format!("0x{}", &PLAIN[1..]),
            format!("0X{}", PLAIN.to_uppercase()),
            PLAIN[1..].to_owned(),
            format!("00:{}", spaced(":")),
        ];
        for text in cases {
            let serial = text.parse::<Serial>();
            assert_eq!(serial.unwrap().to_string(), PLAIN, "{text:?}");
        }
    }
}
