//! Reads the PROXY protocol header in front of a TLS handshake, and not one byte more.
//!
//! Whether a peer sends one is decided by its address, never by its bytes. Both versions are read:
//! nginx sends version 1 only, haproxy and cloud load balancers version 2.
//! <https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How long a proxy may take to send its header. It sends it with the first packet; this leaves
/// time for that to be sent again.
pub(crate) const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest header of version 2, after the fixed part: addresses, and fields that are skipped.
const V2_REST_BYTES_MAX: usize = 2_048;
/// The longest header of version 1: section 2.1 of the specification.
const V1_BYTES_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
const V1_START: &[u8; 6] = b"PROXY ";

/// Why a connection of a proxy has no valid header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    #[error("the peer must send a PROXY protocol header first, and sent something else")]
    NotAHeader,
    #[error("the PROXY protocol header is too long: {0} bytes")]
    TooLong(usize),
    #[error("the PROXY protocol header is not valid")]
    Invalid,
    #[error("the PROXY protocol header is of a protocol other than TCP")]
    NotTcp,
    #[error("the connection ended in its PROXY protocol header")]
    BrokenOff,
    #[error("the PROXY protocol header did not come in time")]
    TimedOut,
}

impl From<ProxyHeaderError> for io::Error {
    fn from(error: ProxyHeaderError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The client's address, or `None` for a connection of the proxy itself, such as a health check.
/// A connection that ends without a byte is an [`io::ErrorKind::UnexpectedEof`].
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant"
)]
pub(crate) async fn read(stream: impl AsyncRead + Unpin) -> io::Result<Option<IpAddr>> {
    let header = tokio::time::timeout(PROXY_HEADER_TIMEOUT, read_bytes(stream)).await;
    let header = header.map_err(|_| ProxyHeaderError::TimedOut)??;
    Ok(client_of(&header)?)
}

async fn read_bytes(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    let mut read = 0;
    while read < header.len() {
        match stream.read(&mut header[read..]).await? {
            0 if read == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Err(ProxyHeaderError::BrokenOff.into()),
            more => read += more,
        }
        // Before the rest: a client that speaks TLS waits for our answer.
        let is_start_of = |whole: &[u8]| {
            let known = read.min(whole.len());
            header[..known] == whole[..known]
        };
        if !is_start_of(V2_SIGNATURE) && !is_start_of(V1_START) {
            return Err(ProxyHeaderError::NotAHeader.into());
        }
    }
    let rest = match header.starts_with(V2_SIGNATURE) {
        true => read_v2(&mut stream, &mut header).await,
        false => read_v1(&mut stream, &mut header).await,
    };
    match rest {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ProxyHeaderError::BrokenOff.into())
        }
        rest => rest.map(|()| header),
    }
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>) -> io::Result<()> {
    header.resize(V2_FIXED_BYTES, 0);
    stream.read_exact(&mut header[V2_SIGNATURE.len()..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > V2_REST_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong(rest).into());
    }
    header.resize(V2_FIXED_BYTES + rest, 0);
    stream.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    Ok(())
}

/// Byte by byte: the handshake follows at once, and belongs to TLS.
async fn read_v1(stream: &mut (impl AsyncRead + Unpin), header: &mut Vec<u8>) -> io::Result<()> {
    while !header.ends_with(b"\r\n") {
        if header.len() == V1_BYTES_MAX {
            return Err(ProxyHeaderError::TooLong(V1_BYTES_MAX + 1).into());
        }
        header.push(stream.read_u8().await?);
    }
    Ok(())
}

fn client_of(header: &[u8]) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: true,
        allow_v2: true,
    };
    let (parsed, length) =
        ProxyHeader::parse(header, config).map_err(|_| ProxyHeaderError::Invalid)?;
    if length != header.len() {
        return Err(ProxyHeaderError::Invalid);
    }
    match parsed.proxied_address() {
        None => Ok(None),
        Some(proxied) if proxied.protocol == Protocol::Stream => {
            Ok(Some(proxied.source.ip().to_canonical()))
        }
        Some(_) => Err(ProxyHeaderError::NotTcp),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x80, 0, 0x20, 0xfb];

    /// A header of version 2 whose length is that of what follows.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    /// What is read of these bytes, and that what follows stays.
    async fn check(header: &[u8], expected: Result<Option<&str>, ProxyHeaderError>) {
        let sent = [header, b"ClientHello"].concat();
        let mut left = &sent[..];
        let got = read(&mut left).await;
        let shown = header.escape_ascii().to_string();
        match (got, expected) {
            (Ok(got), Ok(expected)) => {
                assert_eq!(got.map(|ip| ip.to_string()).as_deref(), expected, "{shown}");
                assert_eq!(left, b"ClientHello", "{shown}");
            }
            (Err(got), Err(expected)) => {
                let got = got.get_ref().and_then(|inner| inner.downcast_ref());
                assert_eq!(got, Some(&expected), "{shown}");
            }
            (got, expected) => panic!("{shown}: {got:?} instead of {expected:?}"),
        }
    }

    #[tokio::test]
    async fn addresses_of_clients() {
        check(&v2(0x21, 0x11, &IPV4), Ok(Some("192.0.2.7"))).await;
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[15] = 7;
        check(&v2(0x21, 0x21, &ipv6), Ok(Some("2001:db8::7"))).await;
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        check(&v2(0x21, 0x21, &mapped), Ok(Some("192.0.2.7"))).await;
        check(
            b"PROXY TCP4 192.0.2.7 198.51.100.1 32768 8443\r\n",
            Ok(Some("192.0.2.7")),
        )
        .await;
        check(
            b"PROXY TCP6 2001:db8::7 2001:db8::1 1 8443\r\n",
            Ok(Some("2001:db8::7")),
        )
        .await;
    }

    /// The connection's own address counts. An address in a LOCAL header is ignored: section 2.2.
    #[tokio::test]
    async fn connections_of_the_proxy_itself() {
        check(&v2(0x20, 0x00, &[]), Ok(None)).await;
        check(&v2(0x20, 0x11, &IPV4), Ok(None)).await;
        check(&v2(0x20, 0x00, &[4, 0, 2, 0, 0]), Ok(None)).await;
        check(&v2(0x21, 0x00, &[]), Ok(None)).await;
        check(&v2(0x21, 0x31, &[1; 216]), Ok(None)).await;
        check(b"PROXY UNKNOWN\r\n", Ok(None)).await;
        check(b"PROXY UNKNOWN 1 2 3 4\r\n", Ok(None)).await;
    }

    #[tokio::test]
    async fn fields_after_the_addresses_are_skipped_up_to_a_limit() {
        for bytes in [3, 100, V2_REST_BYTES_MAX - IPV4.len()] {
            let rest = [&IPV4[..], &vec![0xee; bytes]].concat();
            check(&v2(0x21, 0x11, &rest), Ok(Some("192.0.2.7"))).await;
        }
        let rest = vec![0; V2_REST_BYTES_MAX + 1];
        let error = ProxyHeaderError::TooLong(V2_REST_BYTES_MAX + 1);
        check(&v2(0x21, 0x11, &rest), Err(error)).await;
    }

    #[tokio::test]
    async fn headers_that_are_refused() {
        use ProxyHeaderError as E;
        check(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00",
            Err(E::NotAHeader),
        )
        .await;
        check(b"GET / HTTP/1.1\r\n\r\n", Err(E::NotAHeader)).await;
        check(b"\r\n\r\n\0\r\nQUIT\r", Err(E::NotAHeader)).await;
        check(
            b"PROXYTCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            Err(E::NotAHeader),
        )
        .await;
        check(&v2(0x31, 0x11, &IPV4), Err(E::Invalid)).await;
        check(&v2(0x22, 0x11, &IPV4), Err(E::Invalid)).await;
        check(&v2(0x21, 0x41, &IPV4), Err(E::Invalid)).await;
        check(&v2(0x21, 0x11, &IPV4[..11]), Err(E::Invalid)).await;
        check(&v2(0x21, 0x21, &IPV4), Err(E::Invalid)).await;
        check(&v2(0x21, 0x12, &IPV4), Err(E::NotTcp)).await;
        check(b"PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n", Err(E::Invalid)).await;
        check(b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n", Err(E::Invalid)).await;
        check(
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            Err(E::Invalid),
        )
        .await;
        check(
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            Err(E::Invalid),
        )
        .await;
        let long = [&b"PROXY UNKNOWN "[..], &[b' '; V1_BYTES_MAX]].concat();
        check(&long, Err(E::TooLong(V1_BYTES_MAX + 1))).await;
    }

    #[tokio::test]
    async fn connections_that_end_too_early() {
        let whole = v2(0x21, 0x11, &IPV4);
        for bytes in 1..whole.len() {
            let error = read(&whole[..bytes]).await.unwrap_err();
            let error = error.get_ref().and_then(|inner| inner.downcast_ref());
            assert_eq!(error, Some(&ProxyHeaderError::BrokenOff), "{bytes}");
        }
        let error = read(&b""[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_takes_no_longer_than_its_limit() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(&V2_SIGNATURE[..5]).await.unwrap();
        let before = tokio::time::Instant::now();
        let error = read(near).await.unwrap_err();
        assert_eq!(before.elapsed(), PROXY_HEADER_TIMEOUT);
        let error = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(error, Some(&ProxyHeaderError::TimedOut));
    }
}
