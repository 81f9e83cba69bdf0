//! A text that is sent while it is written: for a large fleet it would take too much memory.

use std::fmt;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::poll_fn;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for the network.
const CHUNKS_MAX: usize = 2;

enum Chunk {
    More(Bytes),
    Last(Bytes),
}

/// A body of what `write` writes, on a thread that waits for the network, for `time_max` in all: it
/// must hold no lock while it writes. `permits` are released at the end. An error cuts the body
/// short, and so does a client that stops reading or reads too slowly.
pub(super) fn body(
    permits: impl Send + 'static,
    time_max: Duration,
    write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result + Send + 'static,
) -> Body {
    let (sender, mut chunks) = mpsc::channel(CHUNKS_MAX);
    let (runtime, deadline) = (Handle::current(), Instant::now() + time_max);
    tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter {
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            sender,
            runtime,
            deadline,
        };
        if write(&mut writer).is_ok() {
            let last = Chunk::Last(writer.chunk.split().freeze());
            // A client that has stopped reading does not need the end.
            let _unread = writer.send(last);
        }
        drop(permits);
    });
    let mut is_whole = false;
    Body::from_stream(poll_fn(move |context| {
        Poll::Ready(match ready!(chunks.poll_recv(context)) {
            Some(Chunk::More(bytes)) => Some(Ok(bytes)),
            Some(Chunk::Last(bytes)) => {
                is_whole = true;
                Some(Ok(bytes))
            }
            None if is_whole => None,
            None => Some(Err(fmt::Error)),
        })
    }))
}

struct ChunkWriter {
    chunk: BytesMut,
    sender: mpsc::Sender<Chunk>,
    runtime: Handle,
    deadline: Instant,
}

impl ChunkWriter {
    fn send(&self, chunk: Chunk) -> fmt::Result {
        let sent = timeout_at(self.deadline, self.sender.send(chunk));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Write for ChunkWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.chunk.extend_from_slice(text.as_bytes());
        if self.chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
        let full = self.chunk.split().freeze();
        self.send(Chunk::More(full))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::to_bytes;
    use tokio::sync::Semaphore;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    async fn written(
        write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result + Send + 'static,
    ) -> Result<Bytes, axum::Error> {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        to_bytes(body(permit, LONG, write), usize::MAX).await
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
    async fn nothing_is_written_without_a_reader() {
        let turns = Arc::new(Semaphore::new(1));
        let permit = turns.clone().try_acquire_owned().unwrap();
        drop(body(permit, LONG, endless));
        let _next = turns.acquire().await.unwrap();
    }

    /// A reader that reads nothing, over HTTP/2 on a connection that is busy otherwise, kept its
    /// turn forever: four of them blocked the metrics for all others.
    #[tokio::test]
    async fn who_does_not_read_gives_the_turn_back() {
        let turns = Arc::new(Semaphore::new(1));
        let permit = turns.clone().try_acquire_owned().unwrap();
        let unread = body(permit, Duration::ZERO, endless);
        let _next = turns.acquire().await.unwrap();
        to_bytes(unread, usize::MAX).await.unwrap_err();
    }

    fn endless(out: &mut dyn fmt::Write) -> fmt::Result {
        loop {
            out.write_str("x")?;
        }
    }
}
