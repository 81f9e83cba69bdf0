//! A text that is sent while it is written: of a large fleet it is larger than there should be memory for.

use std::fmt;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::poll_fn;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for the network.
const CHUNKS_MAX: usize = 2;

/// A body of what `write` writes, on a thread that may wait for the network: it must hold no lock while it writes. What goes wrong
/// cuts the body short, and so does who stops reading.
pub(super) fn body(
    permit: OwnedSemaphorePermit,
    write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result + Send + 'static,
) -> Body {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter {
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            sender,
        };
        let end = match write(&mut writer) {
            Ok(()) => Ok(writer.chunk.freeze()),
            Err(error) => Err(error),
        };
        // Where nobody reads any more nobody needs the end.
        let _unread = writer.sender.blocking_send(end);
        drop(permit);
    });
    Body::from_stream(poll_fn(move |context| chunks.poll_recv(context)))
}

struct ChunkWriter {
    chunk: BytesMut,
    sender: mpsc::Sender<Result<Bytes, fmt::Error>>,
}

impl fmt::Write for ChunkWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.chunk.extend_from_slice(text.as_bytes());
        if self.chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
        let full = self.chunk.split().freeze();
        self.sender.blocking_send(Ok(full)).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::to_bytes;
    use tokio::sync::Semaphore;

    use super::*;

    async fn written(
        write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result + Send + 'static,
    ) -> Result<Bytes, axum::Error> {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        to_bytes(body(permit, write), usize::MAX).await
    }

    #[tokio::test]
    async fn all_of_it_arrives_in_order() {
        for lines in [0, 1, 100, 200_000] {
            let expected: String = (0..lines).map(|line| format!("{line}\n")).collect();
            let got = written(move |out| (0..lines).try_for_each(|line| writeln!(out, "{line}")));
            assert_eq!(got.await.unwrap(), expected, "{lines}");
        }
    }

    #[tokio::test]
    async fn a_half_text_is_no_text() {
        let failing = |out: &mut dyn fmt::Write| {
            out.write_str(&"x".repeat(100_000))?;
            Err(fmt::Error)
        };
        written(failing).await.unwrap_err();
    }

    /// A client that goes away ends the writing, and gives its turn to the next.
    #[tokio::test]
    async fn nobody_writes_for_nobody() {
        let turns = Arc::new(Semaphore::new(1));
        let endless = |out: &mut dyn fmt::Write| loop {
            out.write_str("x")?;
        };
        let permit = turns.clone().try_acquire_owned().unwrap();
        drop(body(permit, endless));
        let _next = turns.acquire().await.unwrap();
    }
}
