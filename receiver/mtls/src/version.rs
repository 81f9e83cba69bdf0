//! The TLS versions that a server accepts: 1.3, and 1.2 unless it is disabled.

use std::fmt;
use std::str::FromStr;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

/// The oldest TLS version that a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMin {
    /// TLS 1.2 and 1.3.
    #[default]
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}

/// An unsupported TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1.2 or 1.3")]
pub struct TlsMinError;

impl TlsMin {
    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
        match self {
            Self::V1_2 => &FROM_1_2,
            Self::V1_3 => &FROM_1_3,
        }
    }
}

impl FromStr for TlsMin {
    type Err = TlsMinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1.2" => Ok(Self::V1_2),
            "1.3" => Ok(Self::V1_3),
            _ => Err(TlsMinError),
        }
    }
}

impl fmt::Display for TlsMin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for min in [TlsMin::V1_2, TlsMin::V1_3] {
            assert_eq!(min.to_string().parse(), Ok(min));
        }
        for wrong in ["", "1", "1.1", "1.4", "13", "1,3", "TLS1.3", "1.3 "] {
            assert_eq!(wrong.parse::<TlsMin>(), Err(TlsMinError), "{wrong:?}");
        }
        assert_eq!(TlsMin::default().to_string(), "1.2");
    }
}
