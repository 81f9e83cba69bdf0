//! DNS names and IP addresses in a certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls_pki_types::DnsName;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// DNS names and addresses of one certificate.
pub const SANS_MAX: usize = 100;

/// A DNS name or IP address of a server.
///
/// ```
/// use lizmon_ca::pki::San;
/// assert_eq!("Metrics.Example".parse::<San>().unwrap().to_string(), "metrics.example");
/// assert!("*.example".parse::<San>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum San {
    /// A host name, lower-case, without a final dot.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl FromStr for San {
    type Err = SanError;

    fn from_str(text: &str) -> Result<Self, SanError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        // RFC 5280 section 4.2.1.6 wants the preferred name syntax: no underscore, no final dot.
        let good = DnsName::try_from(text).is_ok() && !text.contains('_') && !text.ends_with('.');
        if good {
            Ok(Self::Dns(text.to_ascii_lowercase()))
        } else {
            Err(SanError(text.escape_debug().take(80).collect()))
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// Neither a DNS name nor an IP address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a DNS name nor an IP address")]
pub struct SanError(String);

/// The DNS names and addresses of a certificate that this CA issued. `None` if the certificate
/// cannot be parsed or has a name of another kind.
pub(crate) fn sans_of(der: &[u8]) -> Option<Vec<San>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let sans = names.value.general_names.iter().filter_map(|name| {
        Some(match name {
            GeneralName::DNSName(name) => Ok(San::Dns((*name).to_owned())),
            GeneralName::IPAddress(bytes) => address(bytes).map(San::Ip).ok_or(()),
            GeneralName::URI(_) => return None,
            _ => Err(()),
        })
    });
    sans.collect::<Result<_, _>>().ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(Into::into);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(Into::into))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_checked() {
        let long = format!("{}.example", "a".repeat(63));
        let too_long = format!("{}.example", "a".repeat(64));
        let cases = [
            ("localhost", Some("localhost")),
            ("A.Example", Some("a.example")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            (long.as_str(), Some(long.as_str())),
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            (too_long.as_str(), None),
            ("", None),
            (".", None),
            ("a.", None),
            ("a..b", None),
            ("*.example", None),
            ("a_b", None),
            ("-a", None),
            ("a b", None),
            ("bücher.example", None),
            ("https://a.example", None),
            ("a.example:8443", None),
            ("[::1]", None),
            ("1.2.3", None),
            ("256.1.1.1", None),
        ];
        for (text, expected) in cases {
            let got = text.parse::<San>().ok().map(|san| san.to_string());
            assert_eq!(got.as_deref(), expected, "{text:?}");
        }
    }
}
