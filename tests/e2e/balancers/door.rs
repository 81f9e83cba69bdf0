//! `--proxy-protocol`: who sends a header before TLS, and who does not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lizmon_protocol::name::Role;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::process::PATIENCE;
use crate::harness::raw::{exchange, status, tls_config};
use crate::harness::{World, answer};

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A header of version 2 for a client with this address.
fn v2(client: Ipv4Addr) -> Vec<u8> {
    let addresses = [client.octets(), [127, 0, 0, 1], [0x80, 0, 0x20, 0xfb]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &addresses].concat()
}

async fn connect(world: &World, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], world.port()));
    socket.connect(to).await.unwrap()
}

async fn open(world: &World, from: Ipv4Addr, first: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let mut tcp = connect(world, from).await;
    tcp.write_all(first).await?;
    let config = tls_config(&world.root(), None, &["http/1.1"]);
    let name = ServerName::try_from("localhost").unwrap();
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    tokio::time::timeout(PATIENCE, shaken).await.unwrap()
}

async fn is_served(world: &World, from: Ipv4Addr, first: &[u8]) -> bool {
    match open(world, from, first).await {
        Ok(mut stream) => status(&exchange(&mut stream, REQUEST).await.unwrap_or_default()) == 200,
        Err(_) => false,
    }
}

/// How many connections were rejected because of their header.
async fn bad_headers(world: &World) -> u64 {
    let reader = world.holder(Role::Reader, "metrics");
    let got = answer(reader.http.get(world.url("/metrics"))).await.text();
    let name = r#"lizmon_connections_rejected_total{cause="proxy_header"} "#;
    let count = got.lines().find_map(|line| line.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).unwrap()
}

/// The peer's address decides, and never what it sends.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_header() {
    let world = World::start_with(|config| {
        config.proxies.protocol_from = vec!["127.0.0.2".parse().unwrap()];
    })
    .await;
    let client = Ipv4Addr::new(192, 0, 2, 7);
    let v1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 32768 8443\r\n";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let (header, twice) = (v2(client), [v2(client), v2(client)].concat());
    let cases: [(&str, Ipv4Addr, &[u8], bool); 9] = [
        ("a proxy", PROXY, &header, true),
        ("a proxy, version 1", PROXY, v1, true),
        ("a health check of a proxy", PROXY, local, true),
        ("a proxy without a header", PROXY, b"", false),
        ("a proxy with half a header", PROXY, &header[..20], false),
        ("a proxy with two headers", PROXY, &twice, false),
        ("anybody else", OTHER, b"", true),
        ("anybody else with a header", OTHER, &header, false),
        ("anybody else, version 1", OTHER, v1, false),
    ];
    for (story, from, first, expected) in cases {
        assert_eq!(is_served(&world, from, first).await, expected, "{story}");
    }
    // Half a header is completed by TLS, whose handshake fails then.
    let before = bad_headers(&world).await;
    assert_eq!(before, 1, "that of the proxy without one");
    let mut tcp = connect(&world, PROXY).await;
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _reset_or_closed = tcp.read_to_end(&mut Vec::new()).await;
    assert_eq!(bad_headers(&world).await, before + 1);
    // A check that connects and says nothing is nobody's fault.
    drop(connect(&world, PROXY).await);
    assert_eq!(bad_headers(&world).await, before + 1);
}

/// The limit on connections counts clients, not the balancer they come through.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_the_client() {
    let world = World::start_with(|config| {
        config.proxies.protocol_from = vec!["127.0.0.2".parse().unwrap()];
        config.limits.connections_per_address_max = 2;
    })
    .await;
    let mut held = Vec::new();
    for last in 1..=4 {
        let client = Ipv4Addr::new(192, 0, 2, last);
        for _ in 0..2 {
            held.push(open(&world, PROXY, &v2(client)).await.unwrap());
        }
        assert!(!is_served(&world, PROXY, &v2(client)).await, "{client}");
    }
    drop(held);
}
