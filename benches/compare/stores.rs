//! Stores with many series: memory of a receiver that has loaded one, its start, and what a sample
//! costs there.

use std::collections::btree_map::{BTreeMap, Entry};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lizmon_benches::process;
use lizmon_receiver::summarize::Summarizer;
use tokio::time::Instant;

use crate::full_store::{self, LABELS};
use crate::sample_cost::sample_cost;
use crate::scene::{Placing, Scene, now};
use crate::server::start_receiver;
use crate::{COST, FILL};

/// Hosts with full windows; each store is filled once, by a process of its own.
pub(crate) struct Stores<'a> {
    scene: &'a Scene,
    filled: BTreeMap<u64, PathBuf>,
}

/// A receiver that has just become ready.
pub(crate) struct Start {
    pub(crate) took: Duration,
    pub(crate) rss_kib: u64,
}

impl<'a> Stores<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            filled: BTreeMap::new(),
        }
    }

    /// A store of so many hosts of ten labels.
    fn of(&mut self, hosts: u64) -> Result<&Path> {
        match self.filled.entry(hosts) {
            Entry::Occupied(filled) => Ok(filled.into_mut()),
            Entry::Vacant(missing) => {
                let folder = self.scene.folder().join(format!("hosts-{hosts}"));
                // Another row may have filled it.
                let is_new = !folder.exists();
                std::fs::create_dir_all(&folder).context("a folder")?;
                if is_new && hosts > 0 {
                    eprintln!("filling a store with {} series", hosts * LABELS);
                    run_self(&[FILL, &folder.to_string_lossy(), &hosts.to_string()])?;
                }
                Ok(missing.insert(folder))
            }
        }
    }

    /// Starts a receiver on a store of so many hosts.
    pub(crate) fn start(&mut self, hosts: u64) -> Result<Start> {
        let certs = self.scene.certs();
        let folder = self.of(hosts)?;
        let began = Instant::now();
        let program = start_receiver(&certs, folder)?;
        let took = began.elapsed();
        let rss_kib = process::rss_kib(program.pid())?;
        program.stop()?;
        Ok(Start { took, rss_kib })
    }

    /// The CPU time of a sample set of ten values in journal and summaries, in microseconds.
    pub(crate) fn sample_cost(&mut self, hosts: u64) -> Result<f64> {
        let scene = self.scene;
        let folder = self.of(hosts)?.to_string_lossy().into_owned();
        let said = scene.on_server(Placing::Apart, || {
            run_self(&[COST, &folder, &hosts.to_string()])
        })?;
        said.trim().parse().context("its cost")
    }
}

fn run_self(arguments: &[&str]) -> Result<String> {
    let this = std::env::current_exe().context("this program")?;
    let output = Command::new(this).args(arguments).output();
    let output = output.context("this program")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).context("its output")
}

/// Fills a store, in a process of its own.
pub(crate) fn fill(folder: &Path, hosts: u64) {
    full_store::fill(folder, hosts, now());
}

/// Measures what a sample costs in a store, in a process of its own: microseconds.
pub(crate) fn cost(folder: &Path, hosts: u64) -> Result<f64> {
    let now = now();
    let mut store = full_store::store(folder, now);
    let mut summarizer = Summarizer::open(&mut *store, now).context("the store")?;
    let (append, apply) = sample_cost(&mut *store, &mut summarizer, (hosts, now));
    full_store::commit_all(&mut *store, &mut summarizer);
    Ok((append + apply).as_secs_f64() * 1e6)
}
