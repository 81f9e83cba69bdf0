//! The number of a CRL: RFC 5280 section 5.2.3.

use std::fmt;

/// A CRL's number: RFC 5280 section 5.2.3, up to 20 octets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CrlNumber(Box<[u8]>);

impl CrlNumber {
    /// Creates a number from big-endian bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeroes..].into())
    }

    /// The number as a `u64`, or `u64::MAX` if it does not fit.
    pub fn saturating_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        match bytes.len().checked_sub(self.0.len()) {
            Some(at) => {
                bytes[at..].copy_from_slice(&self.0);
                u64::from_be_bytes(bytes)
            }
            None => u64::MAX,
        }
    }
}

impl PartialOrd for CrlNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CrlNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl From<u64> for CrlNumber {
    fn from(number: u64) -> Self {
        Self::from_bytes(&number.to_be_bytes())
    }
}

/// Decimal. Hexadecimal if longer than 64 bits, as in OpenSSL.
impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 8 {
            return write!(f, "{}", self.saturating_u64());
        }
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
