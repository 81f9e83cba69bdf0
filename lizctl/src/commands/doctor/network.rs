//! A server's name and its port, before anything is said there.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use lizmon_client::BaseUrl;
use tokio::net::{TcpStream, lookup_host};

use super::report::{Report, Subject};

/// The limit for a name to resolve, and for each connection.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves the name and connects to each address. Returns whether one of them listens.
pub(super) async fn check(url: &BaseUrl, subject: Subject, report: &mut Report) -> bool {
    let Some((host, port)) = host_and_port(url) else {
        report.failed(
            subject,
            "no-host",
            format_args!("{url} has no host"),
            "write it like https://rx1.example:8443",
        );
        return false;
    };
    let addresses = match in_time(lookup_host((host.as_str(), port))).await {
        Ok(addresses) => addresses.collect::<Vec<SocketAddr>>(),
        Err(error) => {
            report.failed(
                subject,
                "name-unknown",
                format_args!("{host} has no address: {error}"),
                format_args!("check the spelling, then the name server: getent hosts {host}; /etc/resolv.conf"),
            );
            return false;
        }
    };
    let mut refused = Vec::new();
    for address in &addresses {
        if let Err(error) = in_time(TcpStream::connect(address)).await {
            refused.push((address, error));
        }
    }
    let Some((address, error)) = refused.first() else {
        return true;
    };
    let what = format!("{url}: no connection to {address}: {error}");
    let remedy = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "nothing listens there: is it running, does --listen have this address, and is the port right?"
        }
        ErrorKind::TimedOut => {
            "nothing answers: does a firewall, or a security group, drop it? Is the machine up?"
        }
        _ => "check the route to it: ip route get, ping",
    };
    if refused.len() == addresses.len() {
        report.failed(subject, "no-connection", what, remedy);
        return false;
    }
    // `localhost` is two addresses, and a server may listen on one of them.
    if !address.ip().is_loopback() {
        report.warning(subject, "address-unreachable", what, remedy);
    }
    true
}

fn host_and_port(url: &BaseUrl) -> Option<(String, u16)> {
    let uri: http::Uri = url.as_str().parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

#[expect(clippy::disallowed_methods, reason = "STEP_TIMEOUT")]
async fn in_time<T>(step: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    match tokio::time::timeout(STEP_TIMEOUT, step).await {
        Ok(done) => done,
        Err(_) => Err(ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (url, expected) in [
            ("https://rx1.example:8443", ("rx1.example", 8443)),
            ("https://rx1.example", ("rx1.example", 443)),
            ("https://[::1]:8443", ("::1", 8443)),
            ("https://192.0.2.7/x", ("192.0.2.7", 443)),
        ] {
            let found = host_and_port(&url.parse().unwrap());
            assert_eq!(found, Some((expected.0.to_owned(), expected.1)), "{url}");
        }
    }
}
