//! Issues to many names, group by group, until it is told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use lizmon_ca::authority::{Authority, GROUP_NAMES_MAX, Issued, LeafTerms};
use lizmon_protocol::name::NodeName;
use tokio::runtime::Runtime;

use crate::context::Context;
use crate::{issuance, output};

/// How often progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

pub(super) struct IssueLoop<'a> {
    pub(super) authority: &'a Authority,
    pub(super) terms: LeafTerms,
    /// The folder that also gets what the machines need.
    pub(super) out: Option<&'a Path>,
    pub(super) context: &'a Context,
}

impl IssueLoop<'_> {
    /// Issues to all of these names, and returns the last certificate. A signal to stop is obeyed
    /// after the group that is being issued.
    pub(super) fn run(&self, names: &[NodeName], now: u64) -> anyhow::Result<Option<Issued>> {
        let count = names.len();
        let stop = StopFlag::new()?;
        let (mut done, mut last) = (0, None);
        let mut shown_at = (self.context.stopwatch)();
        for group in names.chunks(GROUP_NAMES_MAX) {
            if stop.is_set() {
                bail!(
                    "stopped after {done} of {count} were issued: the same command with --if-missing issues the rest"
                );
            }
            let issued = self
                .issue(group, now)
                .with_context(|| format!("after {done} of {count} were issued"))?;
            done += issued.len();
            last = issued.into_iter().next_back();
            let at = (self.context.stopwatch)();
            if at.saturating_sub(shown_at) >= PROGRESS_EVERY && done < count {
                shown_at = at;
                output::note(format_args!("issued {done} of {count}"));
            }
        }
        Ok(last)
    }

    fn issue(&self, group: &[NodeName], now: u64) -> anyhow::Result<Vec<Issued>> {
        let issued = self.authority.issue_group(&self.terms, group, now)?;
        issued.iter().try_for_each(issuance::show)?;
        issuance::deliver(&issued, self.authority, self.out)?;
        Ok(issued)
    }
}

/// Set by the first signal to stop.
struct StopFlag {
    is_set: Arc<AtomicBool>,
    _listening: Runtime,
}

impl StopFlag {
    fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the event loop")?;
        let stop = {
            let _entered = runtime.enter();
            lizmon_daemon::stop_or_hang_up().context("cannot listen for signals")?
        };
        let is_set = Arc::new(AtomicBool::new(false));
        let flag = is_set.clone();
        runtime.spawn(async move {
            let _either = stop.await;
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self {
            is_set,
            _listening: runtime,
        })
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }
}
