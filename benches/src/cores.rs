//! Which cores a thread may use: what it starts inherits them.

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A core for the server, and one for the load.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    server: CpuSet,
    load: CpuSet,
}

impl Pair {
    /// The first two cores that this thread may use.
    pub fn of_this_thread() -> Result<Self> {
        let all = allowed()?;
        let cores: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|core| all.is_set(*core))
            .collect();
        let [server, load, ..] = cores[..] else {
            bail!("server and load need a core each: there is one; --unpinned shares it");
        };
        let only = |core| {
            let mut set = CpuSet::new();
            set.set(core);
            set
        };
        Ok(Self {
            server: only(server),
            load: only(load),
        })
    }

    /// Calls it on the server's core: what it starts stays there.
    pub fn on_server<T>(&self, call: impl FnOnce() -> T) -> Result<T> {
        on(&self.server, call)
    }

    /// Calls it on the load's core.
    pub fn on_load<T>(&self, call: impl FnOnce() -> T) -> Result<T> {
        on(&self.load, call)
    }
}

fn allowed() -> Result<CpuSet> {
    sched_getaffinity(None).context("this thread's cores")
}

fn on<T>(cores: &CpuSet, call: impl FnOnce() -> T) -> Result<T> {
    let before = allowed()?;
    sched_setaffinity(None, cores).context("a core")?;
    let result = call();
    sched_setaffinity(None, &before).context("the cores of before")?;
    Ok(result)
}
