//! Request bodies: read within bounds, or discarded.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;

use super::config::BODY_TIMEOUT;
use super::response::ErrorResponse;

/// Largest body: four times the request with the largest key that is accepted.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How much of a body that is too large is read and discarded, so that the response arrives.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
/// Reads the whole body, bounded in bytes and in time.
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant or a flag"
)]
pub(super) async fn read(
    timeout: Duration,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Bytes, ErrorResponse> {
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX as u64 && headers.contains_key(EXPECT) {
        // The client has sent nothing of it yet: RFC 9110 section 10.1.1.
        return Err(ErrorResponse::TooLarge);
    }
    let mut content = BytesMut::new();
    let mut received: usize = 0;
    let all = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(ErrorResponse::BadRequest("the body ended early".to_owned()));
            };
            let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
            received += data.len();
            if received <= BODY_BYTES_MAX {
                content.extend_from_slice(data);
            } else if received > DISCARDED_BYTES_MAX {
                break;
            }
        }
        Ok(())
    };
    tokio::time::timeout(timeout, all)
        .await
        .map_err(|_| ErrorResponse::Timeout)??;
    if received > BODY_BYTES_MAX {
        return Err(ErrorResponse::TooLarge);
    }
    Ok(content.freeze())
}

/// Reads and discards a body that no handler reads.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Body) {
    lizmon_mtls::discard(headers, body, DISCARDED_BYTES_MAX, BODY_TIMEOUT).await;
}
