//! What goes on side by side.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::enemies::{Enemies, builder, sample_path};

/// Connections that are opened and say nothing, or half of something.
const HALF_OPEN: usize = 200;
/// The least pause between two of a kind, so that the clients leave the receiver some of the
/// machine.
const PAUSE: Duration = Duration::from_millis(5);
const DEPTH: usize = 100_000;
const WIDTH: usize = 60_000;

/// What goes on side by side, each kind one after another.
pub(super) fn hostilities(enemies: &Enemies) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    macro_rules! for_ever {
        ($hostility:ident) => {{
            let enemies = enemies.clone();
            tasks.push(tokio::spawn(async move {
                loop {
                    $hostility(&enemies).await;
                    sleep(PAUSE).await;
                }
            }));
        }};
    }
    for_ever!(malformed_bodies);
    for_ever!(deep_and_wide_bodies);
    for_ever!(bombs);
    for_ever!(wrong_tokens);
    for_ever!(wrong_tokens);
    for_ever!(new_labels);
    for_ever!(new_producers);
    for_ever!(abandoned_bodies);
    for_ever!(strange_certificates);
    for_ever!(noise_over_tls);
    for _ in 0..HALF_OPEN {
        for_ever!(half_open);
    }
    tasks
}

async fn malformed_bodies(enemies: &Enemies) {
    let node = enemies.node();
    let mut body = br#"{"producer":"1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b","records":[{"seq":17,"epoch":1465001814,"values":{"cpu":4.98}}]}"#.to_vec();
    for _ in 0..fastrand::usize(1..8) {
        let at = fastrand::usize(..body.len());
        match fastrand::bool() {
            true => body[at] = fastrand::u8(..),
            false => body.truncate(at.max(1)),
        }
    }
    let path = match fastrand::bool() {
        true => sample_path(node),
        false => format!("/api/perf/{}", node.name),
    };
    let request = enemies.post(node, &path, &node.token);
    enemies.send(request.body(body)).await;
}

async fn deep_and_wide_bodies(enemies: &Enemies) {
    let node = enemies.node();
    let body = match fastrand::u8(..3) {
        0 => "[".repeat(DEPTH),
        1 => format!("{{\"cpu\":{}", "{\"a\":".repeat(DEPTH)),
        _ => {
            let labels: Vec<String> = (0..WIDTH).map(|at| format!("\"label{at}\":{at}")).collect();
            format!("{{{}}}", labels.join(","))
        }
    };
    enemies.send(enemies.post_sample(node).body(body)).await;
}

async fn bombs(enemies: &Enemies) {
    let node = enemies.node();
    let (encoding, bomb) = match fastrand::bool() {
        true => ("gzip", &enemies.gzip_bomb),
        false => ("zstd", &enemies.zstd_bomb),
    };
    let request = enemies
        .post_sample(node)
        .header("Content-Encoding", encoding);
    enemies.send(request.body(bomb.clone())).await;
}

/// Each is another: whatever remembers tokens must be bounded.
async fn wrong_tokens(enemies: &Enemies) {
    let node = enemies.node();
    let mut token = match fastrand::u8(..3) {
        0 => node.token.clone(),
        1 => enemies.node().token.clone(),
        _ => (0..fastrand::usize(1..2_000))
            .map(|_| fastrand::alphanumeric())
            .collect(),
    };
    let at = fastrand::usize(..token.len());
    token.replace_range(at..=at, &fastrand::alphanumeric().to_string());
    let request = enemies.post(node, &sample_path(node), &token);
    enemies.send(request.body(r#"{"cpu":1}"#)).await;
}

/// Up to the labels a host may have, and on and on.
async fn new_labels(enemies: &Enemies) {
    let node = enemies.node();
    let labels: Vec<String> = (0..20)
        .map(|_| format!("\"{:0128x}\":1", fastrand::u128(..)))
        .collect();
    let body = format!("{{{}}}", labels.join(","));
    enemies.send(enemies.post_sample(node).body(body)).await;
}

/// Each number comes from a producer unheard of, or leaves a gap.
async fn new_producers(enemies: &Enemies) {
    let node = enemies.node();
    let producer = match fastrand::bool() {
        true => uuid::Uuid::from_u128(fastrand::u128(..)),
        false => uuid::Uuid::from_u128(7),
    };
    let key = format!("\"{producer}/{}\"", fastrand::u64(1..1 << 53));
    let request = enemies.post_sample(node).header("Idempotency-Key", key);
    enemies.send(request.body(r#"{"cpu":1}"#)).await;
}

/// A megabyte is announced, a part is sent, and that was that.
async fn abandoned_bodies(enemies: &Enemies) {
    let node = enemies.node();
    let Ok(mut stream) = enemies.connect(&enemies.tls).await else {
        return;
    };
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1048576\r\n\r\n",
        sample_path(node),
        node.token
    );
    let _refused = stream.write_all(head.as_bytes()).await;
    let _refused = stream
        .write_all(&vec![b' '; fastrand::usize(..500_000)])
        .await;
    let _refused = stream.flush().await;
    enemies.counts.broken.fetch_add(1, Ordering::Relaxed);
}

/// A certificate of a CA that nobody knows, another each time.
async fn strange_certificates(enemies: &Enemies) {
    let Ok((chain, key)) = strange_certificate() else {
        return;
    };
    let Ok(builder) = builder(&enemies.certs) else {
        return;
    };
    let Ok(config) = builder.with_client_auth_cert(vec![chain], key) else {
        return;
    };
    let mut answer = [0; 1];
    let is_let_in = match enemies.connect(&Arc::new(config)).await {
        Ok(mut stream) => stream.read(&mut answer).await.is_ok(),
        Err(_) => false,
    };
    if !is_let_in {
        enemies.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn strange_certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error>
{
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    let name = format!("spiffe://lizmon.internal/node/{}", fastrand::u64(..));
    params.subject_alt_names = vec![rcgen::SanType::URI(name.as_str().try_into()?)];
    let cert = params.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((cert.der().clone(), key.into()))
}

/// Bytes that are neither HTTP/1 nor HTTP/2, over a connection that is.
async fn noise_over_tls(enemies: &Enemies) {
    let Ok(mut stream) = enemies.connect(&enemies.tls).await else {
        return;
    };
    let mut noise: Vec<u8> = match fastrand::bool() {
        true => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        false => Vec::new(),
    };
    noise.extend((0..fastrand::usize(1..20_000)).map(|_| fastrand::u8(..)));
    let _refused = stream.write_all(&noise).await;
    let mut answer = Vec::new();
    let _closed = timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
    enemies.counts.broken.fetch_add(1, Ordering::Relaxed);
}

/// Nothing is said, or the beginning of a handshake; held until the receiver has enough of it.
async fn half_open(enemies: &Enemies) {
    let Ok(mut stream) = TcpStream::connect(&enemies.address).await else {
        return sleep(Duration::from_secs(1)).await;
    };
    enemies.counts.half_open.fetch_add(1, Ordering::Relaxed);
    // A ClientHello's first bytes, announcing far more.
    let _refused = stream
        .write_all(&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f][..fastrand::usize(..9)])
        .await;
    let mut answer = Vec::new();
    let _closed = timeout(Duration::from_secs(120), stream.read_to_end(&mut answer)).await;
}
