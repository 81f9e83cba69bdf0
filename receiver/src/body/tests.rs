use super::encoding::MEMBERS_MAX;
use super::*;
use crate::router::Rejection;
use axum::body::Body;
use futures_util::StreamExt as _;
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use lizmon_mtls::client_quota::{LARGE_KIB_PER_HOLDER_MAX, SMALL_KIB_PER_HOLDER_MAX};
use lizmon_mtls::limits::Limits;
use lizmon_protocol::problem::Code;
use std::io::Read as _;

fn sender() -> ClientQuota {
    ClientQuota::new(&Limits::default())
}

async fn read(
    reader: &BodyReader,
    sender: &ClientQuota,
    packed: &[u8],
) -> Result<ReceivedBody, Code> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    let mut body = Body::from(packed.to_vec());
    reader
        .read(&headers, &mut body, BODY_BYTES_MAX, sender)
        .await
        .map_err(|error| Rejection::from(error).code())
}

/// One certificate that fills its room leaves the others theirs; what is let go of can be taken
/// again.
#[tokio::test]
async fn no_sender_takes_anothers_room() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let (greedy, other) = (sender(), sender());
    let mib = vec![b' '; BODY_BYTES_MAX];
    let take = async |sender: &ClientQuota| {
        let mut body = Body::from(mib.clone());
        let taken = reader
            .read(&HeaderMap::new(), &mut body, BODY_BYTES_MAX, sender)
            .await;
        taken
            .map(ReceivedBody::into_reservation)
            .map_err(|error| Rejection::from(error).code())
    };
    let mut held = Vec::new();
    let refused = loop {
        match take(&greedy).await {
            Ok(room) => held.push(room),
            Err(code) => break code,
        }
    };
    assert_eq!(refused, Code::Overloaded);
    assert_eq!(
        held.len(),
        (LARGE_KIB_PER_HOLDER_MAX << 10) / BODY_BYTES_MAX
    );
    assert!(take(&other).await.is_ok());
    held.pop();
    assert!(take(&greedy).await.is_ok());
}

/// A fleet that comes back sends packed batches all at once: small ones do not take the room of
/// large ones.
#[tokio::test]
async fn many_small_packed_bodies_fit_at_once() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let packed = zstd::encode_all(&[b' '; 15_000][..], 0).unwrap();
    let mut held = Vec::new();
    for _ in 0..500 {
        held.push(
            read(&reader, &sender(), &packed)
                .await
                .unwrap()
                .into_reservation(),
        );
    }
    assert_eq!(
        reader.all.small.available_permits(),
        SMALL_KIB_MAX - 500 * (15 + 1)
    );
    drop(held);
    assert_eq!(reader.all.small.available_permits(), SMALL_KIB_MAX);
    assert_eq!(reader.all.large.available_permits(), LARGE_KIB_MAX);
}

#[tokio::test]
async fn bodies_unpacked_at_and_over_the_limit() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    for (bytes, expected) in [
        (UNPACKED_BYTES_MAX, Ok(UNPACKED_BYTES_MAX)),
        (UNPACKED_BYTES_MAX + 1, Err(Code::BodyTooLarge)),
        (200 * UNPACKED_BYTES_MAX, Err(Code::BodyTooLarge)),
    ] {
        let packed = zstd::encode_all(std::io::repeat(b' ').take(bytes as u64), 0).unwrap();
        let got = read(&reader, &sender(), &packed).await;
        assert_eq!(got.map(|body| body.bytes().len()), expected, "{bytes}");
    }
}

/// A sender whose large bodies fill and wait for its room, and holders who together fill
/// everybody's, keep no small body back: neither a plain or packed one, nor an answer.
#[tokio::test]
async fn small_bodies_are_never_behind_large_ones() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let greedy: Vec<_> = (0..8).map(|_| sender()).collect();
    let mut held = Vec::new();
    for quota in &greedy {
        let kib = u32::try_from(LARGE_KIB_PER_HOLDER_MAX).unwrap();
        let of_sender = take_now(&quota.body_memory().large, kib).unwrap();
        held.push(
            MemoryReservation::large(&reader.all, of_sender)
                .await
                .unwrap(),
        );
    }
    assert_eq!(reader.all.large.available_permits(), 0);
    let newcomer = sender();
    let waiting =
        MemoryReservation::large_in_turn(&reader.all, newcomer.body_memory(), UNPACKED_BYTES_MAX);
    let small = async {
        for quota in [&greedy[0], &newcomer] {
            let packed = zstd::encode_all(&[b' '; 15_000][..], 0).unwrap();
            let unpacked = read(&reader, quota, &packed)
                .await
                .map(|body| body.bytes().len());
            assert_eq!(unpacked, Ok(15_000));
            let mut body = Body::from(vec![b' '; SMALL_BYTES_MAX]);
            let none = HeaderMap::new();
            let plain = reader.read(&none, &mut body, BODY_BYTES_MAX, quota);
            plain.await.unwrap();
            reader
                .answer(vec![b' '; SMALL_BYTES_MAX], quota.body_memory())
                .unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = waiting => panic!("there is no large room"),
        () = small => (),
    }
}

/// A body that grows takes one kind of room, and gives all of it back.
#[tokio::test]
async fn room_at_and_over_the_limit_of_small_bodies() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let sender = sender();
    for (bytes, small, large) in [(SMALL_BYTES_MAX, 64, 0), (SMALL_BYTES_MAX + 1, 0, 65)] {
        let parts = vec![b' '; bytes];
        let parts: Vec<_> = parts.chunks(SMALL_BYTES_MAX).map(<[u8]>::to_vec).collect();
        let parts = parts.into_iter().map(Ok::<_, std::io::Error>);
        let mut body = Body::from_stream(futures_util::stream::iter(parts));
        let none = HeaderMap::new();
        let taken = reader.read(&none, &mut body, BODY_BYTES_MAX, &sender);
        let taken = taken.await.unwrap();
        let left = |budgets: &BodyMemoryBudgets| {
            (
                budgets.small.available_permits(),
                budgets.large.available_permits(),
            )
        };
        assert_eq!(
            left(&reader.all),
            (SMALL_KIB_MAX - small, LARGE_KIB_MAX - large)
        );
        let own = (
            SMALL_KIB_PER_HOLDER_MAX - small,
            LARGE_KIB_PER_HOLDER_MAX - large,
        );
        assert_eq!(left(sender.body_memory()), own);
        drop(taken);
        assert_eq!(left(&reader.all), (SMALL_KIB_MAX, LARGE_KIB_MAX));
    }
}

/// Members at and over the limit, what is no member, and what is refused again and again.
#[tokio::test]
async fn members_are_limited_and_refused_work_is_paced() {
    use std::io::Write as _;
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    member.write_all(b" ").unwrap();
    let (gzip, zstd) = (
        member.finish().unwrap(),
        zstd::encode_all(&b" "[..], 0).unwrap(),
    );
    for (encoding, member) in [(Encoding::Gzip, gzip), (Encoding::Zstd, zstd)] {
        for (count, expected) in [(1, true), (MEMBERS_MAX, true), (MEMBERS_MAX + 1, false)] {
            let (bytes, ended) = encoding.unpack(&member.repeat(count), SMALL_BYTES_MAX);
            assert_eq!(bytes.len(), count.min(MEMBERS_MAX), "{encoding:?}");
            assert_eq!(ended.is_ok(), expected, "{encoding:?} {count}");
        }
        let mut broken = member.clone();
        broken.extend_from_slice(b"no member");
        assert!(encoding.unpack(&broken, SMALL_BYTES_MAX).1.is_err());
        assert!(
            encoding
                .unpack(&member[..member.len() - 1], SMALL_BYTES_MAX)
                .1
                .is_err()
        );
    }
    let reader = BodyReader::new(BODY_TIMEOUT);
    let sender = sender();
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(9 << 20), 0).unwrap();
    let mut codes = Vec::new();
    for _ in 0..100 {
        codes.push(read(&reader, &sender, &bomb).await.unwrap_err());
    }
    assert!(codes.contains(&Code::BodyTooLarge) && codes.contains(&Code::RateLimited));
}

/// What has come whole with its head is not counted while it is tiny; what comes in parts is.
#[tokio::test]
async fn room_of_tiny_bodies() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let (sender, none) = (sender(), HeaderMap::new());
    let taken = async |parts: &[usize], kib: usize| {
        let parts: Vec<_> = parts.iter().map(|bytes| vec![b' '; *bytes]).collect();
        let sum: usize = parts.iter().map(Vec::len).sum();
        let mut body = match &parts[..] {
            [whole] => Body::from(whole.clone()),
            _ => {
                let parts = parts.into_iter().map(Ok::<_, std::io::Error>);
                Body::from_stream(futures_util::stream::iter(parts))
            }
        };
        let read = reader.read(&none, &mut body, BODY_BYTES_MAX, &sender).await;
        let read = read.unwrap();
        assert_eq!(read.bytes().len(), sum);
        let left = SMALL_KIB_MAX - reader.all.small.available_permits();
        assert_eq!(left, kib, "{sum}");
    };
    taken(&[0], 0).await;
    taken(&[TINY_BYTES_MAX], 0).await;
    taken(&[TINY_BYTES_MAX + 1], 2).await;
    taken(&[1, 1], 2).await;
    taken(&[], 0).await;
    let mut body = Body::from(vec![b' '; 3]);
    let refused = reader.read(&none, &mut body, 2, &sender).await;
    assert!(matches!(refused, Err(BodyReadError::TooLarge { .. })));
}

/// Nothing of it has come, or a part.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let (sender, none) = (sender(), HeaderMap::new());
    for parts in [vec![], vec![vec![b' '; 10]]] {
        let parts = parts.into_iter().map(Ok::<_, std::io::Error>);
        let stalled = futures_util::stream::iter(parts).chain(futures_util::stream::pending());
        let mut body = Body::from_stream(stalled);
        let before = tokio::time::Instant::now();
        let read = reader.read(&none, &mut body, BODY_BYTES_MAX, &sender).await;
        assert!(matches!(read, Err(BodyReadError::TimedOut)));
        assert_eq!(before.elapsed(), BODY_TIMEOUT);
    }
}
