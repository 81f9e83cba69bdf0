//! Which load balancers are in front of a server, and what it believes of what they say.
//!
//! | how | who is believed | what |
//! | --- | --- | --- |
//! | TCP is passed through, with a PROXY protocol header | peers within configured networks | the client's address |
//! | TLS ends at the proxy (RFC 9440) | peers with a certificate of the role `proxy` | the client's certificate and address |

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The load balancers of a server. The default believes none.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Peers that send a PROXY protocol header before TLS. A peer in one of these networks must,
    /// any other peer must not.
    pub protocol_from: Vec<Network>,
    /// What a certificate of the role `proxy` means.
    pub role: ProxyRole,
}

/// What a certificate of the role `proxy` means to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyRole {
    /// A client like others, as for the CA, which renews its certificate.
    Client,
    /// Nothing: its requests are refused.
    #[default]
    Refused,
    /// It sends requests of clients, whose certificates it names in `Client-Cert`.
    Trusted,
}

/// A network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither a network nor an address.
    #[error("write a network like 10.0.1.0/24 or 2001:db8::/64, or an address")]
    Malformed,
    /// An address and a shorter prefix: the network that was meant is not known.
    #[error("`{0}` is an address in a network: write {1} for the network, or the address alone")]
    HostBits(String, IpNet),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet = text.parse().map_err(|_| NetworkError::Malformed)?;
        match network.trunc() {
            whole if whole == network => Ok(Self(network)),
            whole => Err(NetworkError::HostBits(text.to_owned(), whole)),
        }
    }
}

impl Proxies {
    /// Whether a peer with this address must send a PROXY protocol header.
    pub(crate) fn must_send_header(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.protocol_from
            .iter()
            .any(|network| network.0.contains(&peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_network_is() {
        for (text, expected) in [
            ("10.0.1.0/24", true),
            ("10.0.1.7", true),
            ("10.0.1.7/32", true),
            ("0.0.0.0/0", true),
            ("2001:db8::/64", true),
            ("::1", true),
            ("::ffff:10.0.1.7", true),
            ("10.0.1.7/24", false),
            ("2001:db8::1/64", false),
            ("10.0.1.0/33", false),
            ("10.0.1", false),
            ("proxy.example", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Network>().is_ok(), expected, "{text}");
        }
        let error = "10.0.1.7/24".parse::<Network>().unwrap_err();
        assert!(error.to_string().contains("10.0.1.0/24"), "{error}");
    }

    #[test]
    fn who_must_send_a_header() {
        let proxies = Proxies {
            protocol_from: ["10.0.1.0/24", "2001:db8::7"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            ..Proxies::default()
        };
        for (address, expected) in [
            ("10.0.1.0", true),
            ("10.0.1.255", true),
            // As an IPv6 listener sees it.
            ("::ffff:10.0.1.9", true),
            ("10.0.2.1", false),
            ("2001:db8::7", true),
            ("2001:db8::8", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(proxies.must_send_header(address), expected, "{address}");
            assert!(!Proxies::default().must_send_header(address));
        }
    }
}
