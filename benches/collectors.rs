//! The CPU time that each collector takes of a sample, with what it does on threads and in processes
//! of its own.
//!
//! `cargo bench --workspace --profile dev --bench collectors`

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement: it measures time, prints, and fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lizmon_benches::cpu;
use lizmon_monitor::collect::{
    COLLECTORS, CPU_INTERVAL_MIN, CollectOptions, CollectorSpec, DEFAULT_COLLECTORS, Sampler,
    SelfStats,
};
use rustix::time::{ClockId, clock_gettime};

/// Ten minutes of samples: what is read every few seconds or once a minute has its share.
const SAMPLES: u64 = 600;
/// Collectors have so long for a simulated second: threads of their own end their work meanwhile.
const PAUSE: Duration = Duration::from_millis(5);
/// sysinfo measures by its own clock how far two readings are apart.
const CPU_SAMPLES: u64 = 60;
const START: Duration = Duration::from_secs(1_465_001_814);

fn main() {
    println!("| collector | labels | CPU time, us a sample |\n| --- | --- | --- |");
    for spec in COLLECTORS {
        print(spec.name, &[spec]);
    }
    print("all of the default", DEFAULT_COLLECTORS);
    print("all", COLLECTORS);
}

fn print(name: &str, specs: &[&'static CollectorSpec]) {
    let (labels, micros) = measure(specs);
    println!("| `{name}` | {labels} | {micros:.0} |");
}

/// The labels of the last sample, and the CPU time of each.
fn measure(specs: &[&'static CollectorSpec]) -> (usize, f64) {
    let needs_time = specs.iter().any(|spec| spec.name == "cpu");
    let (samples, pause) = match needs_time {
        true => (CPU_SAMPLES, CPU_INTERVAL_MIN),
        false => (SAMPLES, PAUSE),
    };
    let seconds = Arc::new(AtomicU64::new(0));
    let monotonic = {
        let seconds = seconds.clone();
        Arc::new(move || Duration::from_secs(seconds.load(Ordering::Relaxed)))
    };
    let options = CollectOptions {
        own: own(),
        ..CollectOptions::default()
    };
    let (mut sampler, _) = Sampler::start(specs, &options, monotonic, START).unwrap();
    let mut labels = 0;
    let before = all_cpu_secs();
    for _ in 0..samples {
        let second = seconds.fetch_add(1, Ordering::Relaxed) + 1;
        std::thread::sleep(pause);
        let collected = sampler.sample(SelfStats::default(), START + Duration::from_secs(second));
        labels = collected.values.len();
    }
    drop(sampler);
    (labels, (all_cpu_secs() - before) / samples as f64 * 1e6)
}

/// A command that prints one number, once a minute.
fn own() -> lizmon_monitor::collect::OwnOptions {
    lizmon_monitor::collect::OwnOptions {
        commands: vec!["one=/bin/echo 1".parse().unwrap()],
        ..Default::default()
    }
}

/// Of this process, and of the processes that it has started and reaped.
fn all_cpu_secs() -> f64 {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = own.tv_sec as f64 + own.tv_nsec as f64 / 1e9;
    own + cpu::secs_of_children(std::process::id()).unwrap()
}
