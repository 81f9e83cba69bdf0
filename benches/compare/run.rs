//! What a load counts, and what the server used meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use lizmon_benches::cpu;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::server::Server;

/// Before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Latencies above this count as this, in microseconds.
const LATENCY_MAX: u64 = 60_000_000;
/// Significant digits of a percentile.
const DIGITS: u8 = 3;

/// What all connections of a load share.
pub(crate) struct Run {
    is_over: AtomicBool,
    is_measured: AtomicBool,
    answered: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

impl Run {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let latency = Histogram::new_with_max(LATENCY_MAX, DIGITS).context("a histogram")?;
        Ok(Arc::new(Self {
            is_over: AtomicBool::new(false),
            is_measured: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            latency: Mutex::new(latency),
        }))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn answered_after(&self, took: Duration) {
        if self.is_measured.load(Ordering::Relaxed) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            latency.saturating_record(took.as_micros() as u64);
        }
    }

    fn measure(&self, is_measured: bool) {
        self.is_measured.store(is_measured, Ordering::Relaxed);
    }

    fn latency(&self) -> Histogram<u64> {
        let latency = self.latency.lock();
        latency.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What was measured in a while.
pub(crate) struct Figures {
    pub(crate) answered: u64,
    pub(crate) rss_kib: u64,
    latency: Histogram<u64>,
    wall_secs: f64,
    server_cpu_secs: f64,
    load_cpu_secs: f64,
}

impl Figures {
    pub(crate) fn per_cpu_sec(&self) -> f64 {
        self.answered as f64 / self.server_cpu_secs
    }

    pub(crate) fn per_sec(&self) -> f64 {
        self.answered as f64 / self.wall_secs
    }

    /// The server's CPU time for each answer.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.server_cpu_secs * 1e6 / self.answered as f64
    }

    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// A line of progress. The cores in use say whether load or server was the limit.
    pub(crate) fn said(&self) -> String {
        format!(
            "{:.0} per CPU second, {:.0} per second; p50 {:.2}, p99 {:.2}, p99.9 {:.2} ms; cores: server {:.2}, load {:.2}; {} KiB",
            self.per_cpu_sec(),
            self.per_sec(),
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.latency_ms(0.999),
            self.server_cpu_secs / self.wall_secs,
            self.load_cpu_secs / self.wall_secs,
            self.rss_kib,
        )
    }
}

/// Measures loads that are running side by side, and ends them.
pub(crate) async fn measure<T: 'static, const N: usize>(
    server: &Server,
    runs: [&Run; N],
    lasting: Duration,
    mut tasks: JoinSet<Result<T>>,
) -> Result<([Figures; N], Vec<T>)> {
    sleep(WARM_UP).await;
    let load_cpu = || cpu::secs(std::process::id());
    let (before, load_before) = (server.cpu_secs()?, load_cpu()?);
    let began = Instant::now();
    runs.iter().for_each(|run| run.measure(true));
    sleep(lasting).await;
    runs.iter().for_each(|run| run.measure(false));
    let wall_secs = began.elapsed().as_secs_f64();
    let (after, load_after) = (server.cpu_secs()?, load_cpu()?);
    let rss_kib = server.rss_kib()?;
    let figures = runs.map(|run| Figures {
        answered: run.answered.load(Ordering::Relaxed),
        latency: run.latency(),
        rss_kib,
        wall_secs,
        server_cpu_secs: after - before,
        load_cpu_secs: load_after - load_before,
    });
    for run in runs {
        run.is_over.store(true, Ordering::Relaxed);
    }
    let mut ended = Vec::new();
    while let Some(task) = tasks.join_next().await {
        ended.push(task.context("a task")??);
    }
    Ok((figures, ended))
}
