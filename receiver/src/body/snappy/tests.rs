use axum::body::Body;
use http::HeaderValue;
use lizmon_mtls::limits::Limits;
use lizmon_protocol::problem::Code;

use super::super::{BODY_BYTES_MAX, BODY_TIMEOUT, SMALL_KIB_MAX};
use super::*;
use crate::router::Rejection;

fn pack(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// A block that says it has so many bytes, with this after it.
fn block_of(declared: u64, rest: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut left = declared;
    while left > 0x7f {
        block.push(left as u8 | 0x80);
        left >>= 7;
    }
    block.push(left as u8);
    block.extend_from_slice(rest);
    block
}

async fn read(reader: &BodyReader, codings: &[&str], packed: &[u8]) -> Result<Vec<u8>, Code> {
    let mut headers = HeaderMap::new();
    for coding in codings {
        headers.append(CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
    }
    let mut body = Body::from(packed.to_vec());
    let sender = ClientQuota::new(&Limits::default());
    reader
        .read_snappy(&headers, &mut body, BODY_BYTES_MAX, &sender)
        .await
        .map(|body| body.bytes().to_vec())
        .map_err(|error| Rejection::from(error).code())
}

#[tokio::test]
async fn blocks_up_to_the_limits() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    for len in [
        0,
        1,
        SMALL_BYTES_MAX,
        SMALL_BYTES_MAX + 1,
        UNPACKED_BYTES_MAX,
    ] {
        let bytes = vec![b'a'; len];
        let unpacked = read(&reader, &["snappy"], &pack(&bytes)).await;
        assert_eq!(
            unpacked.map(|unpacked| unpacked == bytes),
            Ok(true),
            "{len}"
        );
    }
    let over = pack(&vec![b'a'; UNPACKED_BYTES_MAX + 1]);
    assert!(over.len() < BODY_BYTES_MAX);
    let refused = read(&reader, &["snappy"], &over).await;
    assert_eq!(refused, Err(Code::BodyTooLarge));
    let long = vec![b'a'; BODY_BYTES_MAX + 1];
    assert_eq!(
        read(&reader, &["snappy"], &long).await,
        Err(Code::BodyTooLarge)
    );
}

#[tokio::test]
async fn what_is_no_block() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let good = pack(b"abc");
    let check = async |codings: &[&str], packed: &[u8], expected| {
        let found = read(&reader, codings, packed).await;
        assert_eq!(found, expected, "{codings:?} {packed:x?}");
    };
    check(&[" Snappy"], &good, Ok(b"abc".to_vec())).await;
    for codings in [&[][..], &["gzip"], &["snappy", "snappy"], &["snappy, gzip"]] {
        check(codings, &good, Err(Code::UnsupportedEncoding)).await;
    }
    let malformed = Err(Code::MalformedJson);
    let framed = b"\xff\x06\x00\x00sNaPpY";
    let mut cut = good.clone();
    cut.pop();
    let longer = [&good[..], b"x"].concat();
    for packed in [
        &b""[..],
        framed,
        &cut,
        &longer,
        // More is said than there is, and less.
        &block_of(4, &good[1..]),
        &block_of(2, &good[1..]),
        // A copy from before the beginning.
        &block_of(4, b"\x01\x01"),
        // A length without an end.
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        check(&["snappy"], packed, malformed.clone()).await;
    }
    // Nothing is unpacked to find out that these are too large.
    for declared in [UNPACKED_BYTES_MAX as u64 + 1, u64::from(u32::MAX)] {
        let block = block_of(declared, b"\x00a");
        check(&["snappy"], &block, Err(Code::BodyTooLarge)).await;
    }
}

/// What a block says to have is reserved, and let go of with the body, whether it has it or not.
#[tokio::test]
async fn memory_is_reserved_as_declared() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(SNAPPY));
    let sender = ClientQuota::new(&Limits::default());
    let read = async |packed: Vec<u8>| {
        let mut body = Body::from(packed);
        let read = reader.read_snappy(&headers, &mut body, BODY_BYTES_MAX, &sender);
        read.await
    };
    let large = || sender.body_memory().large.available_permits();
    let before = large();
    let held = read(pack(&vec![b'a'; 2 << 20])).await.unwrap();
    assert!(before - large() >= 2 << 10);
    assert!(read(block_of(2 << 20, b"\x00a")).await.is_err());
    drop(held);
    assert_eq!(large(), before);
    assert_eq!(reader.all.small.available_permits(), SMALL_KIB_MAX);
}

/// Who sends what cannot be unpacked again and again has to wait.
#[tokio::test]
async fn refused_blocks_are_charged() {
    let reader = BodyReader::new(BODY_TIMEOUT);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(SNAPPY));
    let sender = ClientQuota::new(&Limits::default());
    let broken = block_of(4 << 20, &vec![b'a'; 1 << 19]);
    let mut was_slowed = false;
    for _ in 0..200 {
        let mut body = Body::from(broken.clone());
        let read = reader.read_snappy(&headers, &mut body, BODY_BYTES_MAX, &sender);
        let error = read.await.unwrap_err();
        was_slowed |= matches!(error, BodyReadError::RateLimited(_));
    }
    assert!(was_slowed);
}
