//! What several benchmarks use. See docs/performance.md.

pub mod cpu;
