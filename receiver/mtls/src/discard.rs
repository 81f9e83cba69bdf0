//! Discards the rest of a request body that was rejected or is not needed.

use std::time::Duration;

use bytes::Buf;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;

/// Reads and discards the rest of a body, within limits. If a connection closes with unread bytes,
/// the system resets it, and the client loses the response that says why the request was rejected.
#[expect(
    clippy::disallowed_methods,
    reason = "enforces a limit that is a named constant or a flag"
)]
pub async fn discard<B>(headers: &HeaderMap, mut body: B, bytes_max: usize, time_max: Duration)
where
    B: http_body::Body + Unpin,
{
    // A client that sent `Expect: 100-continue` has sent no body yet: RFC 9110 section 10.1.1.
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let mut left = bytes_max;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Buf::remaining));
            if left == 0 {
                break;
            }
        }
    };
    let _out_of_time_or_not = tokio::time::timeout(time_max, all).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::HeaderValue;

    use super::*;

    /// Sends frames of 100 bytes, then stalls forever.
    struct Endless {
        frames: usize,
        frames_max: usize,
    }

    impl http_body::Body for &mut Endless {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Infallible>>> {
            if self.frames == self.frames_max {
                return Poll::Pending;
            }
            self.frames += 1;
            Poll::Ready(Some(Ok(http_body::Frame::data(&[0; 100]))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_than_is_worth_an_answer() {
        for (frames_max, expects, expected) in [
            // Reads up to the limit, then what arrives in time, and nothing if nothing was sent.
            (1_000, false, 10),
            (5, false, 5),
            (1_000, true, 0),
        ] {
            let mut headers = HeaderMap::new();
            if expects {
                headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
            }
            let mut body = Endless {
                frames: 0,
                frames_max,
            };
            discard(&headers, &mut body, 1_000, Duration::from_secs(5)).await;
            assert_eq!(body.frames, expected, "of {frames_max}, {expects}");
        }
    }
}
