//! Bodies that are too large, compressed or decompressed, and badly compressed bodies.

use std::io::Write;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use super::{Stage, batch_of, record};

const WIRE_BYTES_MAX: usize = 1 << 20;
const UNPACKED_BYTES_MAX: usize = 8 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("memory takes it")
}

/// A valid batch, padded with spaces to this size.
fn padded(epoch: u64, seq: u64, size: usize) -> Vec<u8> {
    let mut body = batch_of(&[record(seq, epoch, json!({"cpu": 1}))]).into_bytes();
    body.resize(size, b' ');
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_at_and_over_each_limit() {
    let mut stage = Stage::set().await;
    let now = stage.world.clock.now();
    let chunks = |body: Vec<u8>| {
        let frames: Vec<Result<_, std::convert::Infallible>> = body
            .chunks(60_000)
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        reqwest::Body::wrap(StreamBody::new(futures_util::stream::iter(frames)))
    };
    type Encode = fn(&[u8]) -> Vec<u8>;
    let encodings: [(&str, Encode); 3] = [("", <[u8]>::to_vec), ("gzip", gzip), ("zstd", zstd)];
    let mut seq = 0;
    for (encoding, encode) in encodings {
        for (size, code) in [
            (WIRE_BYTES_MAX, None),
            (
                WIRE_BYTES_MAX + 1,
                encoding.is_empty().then_some("body_too_large"),
            ),
            (
                UNPACKED_BYTES_MAX,
                encoding.is_empty().then_some("body_too_large"),
            ),
            (UNPACKED_BYTES_MAX + 1, Some("body_too_large")),
        ] {
            for chunked in [false, true] {
                seq += 1;
                let story = format!("{size} bytes, {encoding:?}, chunked {chunked}");
                let body = encode(&padded(now, seq, size));
                let request = if encoding.is_empty() {
                    stage.batch()
                } else {
                    stage.batch().header("content-encoding", encoding)
                };
                let request = request.body(if chunked { chunks(body) } else { body.into() });
                match code {
                    Some(code) => {
                        stage.refused(request, code, &story).await;
                    }
                    None => {
                        stage.taken(request, &story).await;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_bad_encodings() {
    let mut stage = Stage::set().await;
    let good = br#"{"cpu":1}"#;
    let gigabyte = |mut encoder: Box<dyn Encoder>| {
        let zeros = vec![b' '; 1 << 20];
        for _ in 0..1_024 {
            encoder.write_all(&zeros).expect("memory takes it");
        }
        encoder.finish()
    };
    let gzip_bomb = gigabyte(Box::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::best(),
    )));
    let zstd_bomb = gigabyte(Box::new(
        zstd::Encoder::new(Vec::new(), 19).expect("an encoder"),
    ));
    assert!(gzip_bomb.len() <= WIRE_BYTES_MAX + 64 && zstd_bomb.len() < WIRE_BYTES_MAX);
    let mut cut = gzip(good);
    cut.truncate(cut.len() - 4);
    let mut wrong_sum = gzip(good);
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let with_tail = [gzip(good), b"tail".to_vec()].concat();
    let mut zstd_cut = zstd(good);
    zstd_cut.truncate(zstd_cut.len() - 2);
    let zstd_tail = [zstd(good), b"tail".to_vec()].concat();
    // A frame that asks for a window of 2 GiB: RFC 8878 section 3.1.1.1.2.
    let zstd_window = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8][..],
        &[0x01, 0x00, 0x00],
    ]
    .concat();
    for (story, encoding, body, code) in [
        (
            "gzip bomb",
            "gzip",
            gzip_bomb[..gzip_bomb.len().min(WIRE_BYTES_MAX)].to_vec(),
            "body_too_large",
        ),
        ("zstd bomb", "zstd", zstd_bomb, "body_too_large"),
        ("gzip that is none", "gzip", good.to_vec(), "malformed_json"),
        ("zstd that is none", "zstd", good.to_vec(), "malformed_json"),
        ("gzip called zstd", "zstd", gzip(good), "malformed_json"),
        ("zstd called gzip", "gzip", zstd(good), "malformed_json"),
        ("gzip not called so", "", gzip(good), "malformed_json"),
        ("gzip cut", "gzip", cut, "malformed_json"),
        ("gzip with a wrong sum", "gzip", wrong_sum, "malformed_json"),
        ("gzip with a tail", "gzip", with_tail, "malformed_json"),
        ("gzip in gzip", "gzip", gzip(&gzip(good)), "malformed_json"),
        ("empty gzip body", "gzip", Vec::new(), "malformed_json"),
        ("zstd cut", "zstd", zstd_cut, "malformed_json"),
        ("zstd with a tail", "zstd", zstd_tail, "malformed_json"),
        (
            "zstd with a giant window",
            "zstd",
            zstd_window,
            "malformed_json",
        ),
        ("empty zstd body", "zstd", Vec::new(), "malformed_json"),
        ("br", "br", good.to_vec(), "unsupported_encoding"),
        ("deflate", "deflate", good.to_vec(), "unsupported_encoding"),
        ("unknown", "x", good.to_vec(), "unsupported_encoding"),
        (
            "two encodings",
            "gzip, zstd",
            zstd(&gzip(good)),
            "unsupported_encoding",
        ),
        (
            "gzip twice",
            "gzip, gzip",
            gzip(&gzip(good)),
            "unsupported_encoding",
        ),
        (
            "not a token",
            "gzip;q=1",
            gzip(good),
            "unsupported_encoding",
        ),
    ] {
        let request = stage.single().body(body);
        let request = if encoding.is_empty() {
            request
        } else {
            request.header("content-encoding", encoding)
        };
        stage.refused(request, code, story).await;
    }
    // RFC 9110 section 8.4.1: names fold case. RFC 1952 section 2.2 and RFC 8878 section 3: members
    // and frames follow one another.
    for (story, encoding, body) in [
        ("gzip", "gzip", gzip(good)),
        ("GZIP", "GZIP", gzip(good)),
        ("zstd", "zstd", zstd(good)),
        ("Zstd", "Zstd", zstd(good)),
        (
            "two members",
            "gzip",
            [gzip(&good[..4]), gzip(&good[4..])].concat(),
        ),
        (
            "two frames",
            "zstd",
            [zstd(&good[..4]), zstd(&good[4..])].concat(),
        ),
    ] {
        let request = stage
            .single()
            .header("content-encoding", encoding)
            .body(body);
        stage.taken(request, story).await;
    }
}

trait Encoder: Write {
    fn finish(self: Box<Self>) -> Vec<u8>;
}

impl Encoder for flate2::write::GzEncoder<Vec<u8>> {
    fn finish(self: Box<Self>) -> Vec<u8> {
        flate2::write::GzEncoder::finish(*self).expect("memory takes it")
    }
}

impl Encoder for zstd::Encoder<'static, Vec<u8>> {
    fn finish(self: Box<Self>) -> Vec<u8> {
        zstd::Encoder::finish(*self).expect("memory takes it")
    }
}
