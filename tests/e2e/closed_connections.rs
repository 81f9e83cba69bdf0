//! A server that closes a connection on which a request is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lizmon_client::{BaseUrl, Client, ConnectError, ConnectFailure, Credentials, Error};
use lizmon_protocol::sample::{
    EncodedSamples, Epoch, IdempotencyKey, ProducerId, Seq, parse_sample_set,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Holder, World};

/// Forwards connections to the world's receiver. While `cuts` is not 0, one is closed as soon as
/// more comes from the client.
async fn forward(listener: TcpListener, port: u16, cuts: Arc<AtomicUsize>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let cuts = cuts.clone();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut up, mut down) = ([0; 16_384], [0; 16_384]);
            loop {
                tokio::select! {
                    read = client.read(&mut up) => {
                        let Ok(read @ 1..) = read else { return };
                        let less = |cuts: usize| cuts.checked_sub(1);
                        let order = Ordering::SeqCst;
                        if cuts.fetch_update(order, order, less).is_ok() {
                            return;
                        }
                        server.write_all(&up[..read]).await.unwrap();
                    }
                    read = server.read(&mut down) => {
                        let Ok(read @ 1..) = read else { return };
                        client.write_all(&down[..read]).await.unwrap();
                    }
                }
            }
        });
    }
}

fn client(world: &World, node: &Holder, port: u16) -> Client {
    let url: BaseUrl = format!("https://localhost:{port}").parse().unwrap();
    let credentials = Credentials {
        cert: node.cert.clone(),
        key: node.key.clone(),
        ca: world.root(),
    };
    Client::new(url, &credentials, world.clock.now()).unwrap()
}

fn failure(error: &Error) -> Option<ConnectFailure> {
    match error {
        Error::Connect(ConnectError::Unreachable { failure, .. }) => Some(*failure),
        _ => None,
    }
}

/// Asks over a connection that was used before, which is closed with the request on its way, and so
/// are the next ones, `times` in all. The last answer's connection may not be free again yet: then
/// a new one is opened, and closed in its handshake, before anything was sent. The client may lose
/// the one that gets free in that moment, so `use_one` is called before the next try.
async fn cut<T>(
    cuts: &AtomicUsize,
    times: usize,
    ask: impl AsyncFn() -> Result<T, Error>,
    use_one: impl AsyncFn(),
) -> Result<T, Error> {
    loop {
        cuts.store(times, Ordering::SeqCst);
        let answered = ask().await;
        let left = cuts.swap(0, Ordering::SeqCst);
        match answered {
            Err(error) if failure(&error) == Some(ConnectFailure::Connect) => use_one().await,
            answered => {
                assert_eq!(left, 0, "it was cut");
                return answered;
            }
        }
    }
}

/// More than any connection needs to be free again.
const TRIES_MAX: usize = 50;

/// The same, of what is not sent again. Where the connection gets free while a new one is opened
/// for the request, the new one may be closed in its place; then it is asked again.
async fn broken_by_cut<T>(
    cuts: &AtomicUsize,
    times: usize,
    ask: impl AsyncFn() -> Result<T, Error>,
    use_one: impl AsyncFn(),
) -> Error {
    for _ in 0..TRIES_MAX {
        if let Err(error) = cut(cuts, times, &ask, &use_one).await {
            return error;
        }
    }
    panic!("it was answered each time, though its connections were closed")
}

/// A numbered sample is sent again at once. One without a number might count twice.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_cannot_count_twice_is_sent_again() {
    let world = World::start().await;
    let node = world.node("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cuts = Arc::new(AtomicUsize::new(0));
    tokio::spawn(forward(listener, world.port(), cuts.clone()));
    let client = client(&world, &node, port);
    let now = world.clock.now();
    let host = "a".parse().unwrap();
    let values = parse_sample_set(br#"{"cpu":1}"#).unwrap();
    let values = EncodedSamples::encode(&values).unwrap();
    let publish = async |seq: Option<u64>| {
        let key = seq.map(|seq| IdempotencyKey {
            producer: ProducerId::from_bytes([7; 16]),
            seq: Seq::new(seq).unwrap(),
        });
        let epoch = Epoch::new(now).unwrap();
        client.publish(&host, epoch, &values, key, now).await
    };
    let ask = async || client.delivery(&host, now).await;
    let use_one = async || drop(ask().await.unwrap());
    publish(None).await.unwrap();
    cut(&cuts, 1, async || publish(Some(1)).await, use_one)
        .await
        .unwrap();
    cut(&cuts, 1, ask, use_one).await.unwrap();
    let error = broken_by_cut(&cuts, 1, async || publish(None).await, use_one).await;
    assert_eq!(failure(&error), Some(ConnectFailure::Broken), "{error}");
    publish(Some(1)).await.unwrap();
    // Not for ever, and the error is the first one: the receiver may have the sample.
    let error = broken_by_cut(&cuts, 2, async || publish(Some(2)).await, use_one).await;
    assert_eq!(failure(&error), Some(ConnectFailure::Broken), "{error}");
    publish(Some(2)).await.unwrap();
    let delivery = client.delivery(&host, now).await.unwrap();
    assert_eq!(delivery.producers[0].received, 2);
}
