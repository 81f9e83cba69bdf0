//! Decodes series on all processors while their rows are read, which one thread does.
//!
//! ```text
//! rows ─> batch ─> channel ─> other threads ─┐
//!           └──── while that is full ────────┴─> decode ─> sink
//! ```

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::super::super::state::SeriesSink;
use super::super::series_body;

/// Bytes in a batch: enough that handing it over costs little, few enough for a processor's cache.
pub(in crate::store::embedded) const BATCH_BYTES: usize = 64 << 10;
/// Batches that wait.
const WAITING_MAX: usize = 4;
/// Beside the one that reads.
const THREADS_MAX: usize = 7;

/// Rows whose bodies are not decoded yet.
#[derive(Default)]
struct Batch<'a> {
    /// The host, and how long label and body are.
    rows: Vec<(&'a str, usize, usize)>,
    /// The labels and bodies, one behind the other.
    bytes: Vec<u8>,
}

/// What all threads write to.
struct Decoded<'s> {
    sink: &'s mut dyn SeriesSink,
    /// Host and label of those that could not be decoded.
    lost: BTreeSet<(String, String)>,
}

/// Takes host, label and body of a row.
pub(super) type GiveBody<'a, 't> = &'t mut dyn FnMut(&'a str, &str, &[u8]);

/// Decodes all rows that `read` gives, and gives the series to the sink. Returns host and label of
/// those that could not be decoded.
pub(super) fn decode<'a>(
    sink: &mut dyn SeriesSink,
    read: impl FnOnce(GiveBody<'a, '_>),
) -> BTreeSet<(String, String)> {
    let lost = BTreeSet::new();
    let decoded = Mutex::new(Decoded { sink, lost });
    let (waiting, batches) = sync_channel(WAITING_MAX);
    let batches = Mutex::new(batches);
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..(processors - 1).min(THREADS_MAX) {
            let work = || decode_waiting(&batches, &decoded);
            // Without it the others do more.
            let _or_not = thread::Builder::new()
                .name("load".to_owned())
                .spawn_scoped(scope, work);
        }
        let mut batch = Batch::default();
        read(&mut |host, label, body| {
            batch.add(host, label, body);
            if batch.bytes.len() >= BATCH_BYTES {
                std::mem::take(&mut batch).hand_over(&waiting, &decoded);
            }
        });
        batch.hand_over(&waiting, &decoded);
        drop(waiting);
        decode_waiting(&batches, &decoded);
    });
    let decoded = decoded.into_inner();
    decoded.unwrap_or_else(PoisonError::into_inner).lost
}

/// Until no more can come.
fn decode_waiting(batches: &Mutex<Receiver<Batch<'_>>>, decoded: &Mutex<Decoded<'_>>) {
    loop {
        let next = lock(batches).recv();
        let Ok(batch) = next else { return };
        batch.decode(decoded);
    }
}

/// A thread that panics ends the start: the scope passes it on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Batch<'a> {
    fn add(&mut self, host: &'a str, label: &str, body: &[u8]) {
        self.rows.push((host, label.len(), body.len()));
        self.bytes.extend_from_slice(label.as_bytes());
        self.bytes.extend_from_slice(body);
    }

    /// To another thread, or to this one while all have enough to do.
    fn hand_over(self, waiting: &SyncSender<Self>, decoded: &Mutex<Decoded<'_>>) {
        let refused = waiting.try_send(self).err();
        if let Some(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = refused {
            batch.decode(decoded);
        }
    }

    fn decode(&self, decoded: &Mutex<Decoded<'_>>) {
        let mut left = &self.bytes[..];
        let mut next = |bytes: usize| {
            let (next, rest) = left.split_at(bytes);
            left = rest;
            next
        };
        let rows = self.rows.iter().map(|(host, label, body)| {
            let label = String::from_utf8_lossy(next(*label));
            let series = series_body::decode(host, &label, next(*body));
            (*host, label, series)
        });
        let rows: Vec<_> = rows.collect();
        let mut decoded = lock(decoded);
        for (host, label, series) in rows {
            match series {
                Some(series) => decoded.sink.take(host, &label, series),
                None => {
                    decoded.lost.insert((host.to_owned(), label.into_owned()));
                }
            }
        }
    }
}
