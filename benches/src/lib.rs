//! What several benchmarks use. See docs/performance.md.

pub mod bare;
pub mod cores;
pub mod cpu;
pub mod process;
pub mod program;
