//! The rules in force, their channels, and what is known of both.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand;
use lizmon_alarms::board::AlarmBoard;
use lizmon_alarms::channel::{ChannelClock, ChannelReport, Channels, NoticeQueues, TestError};
use lizmon_alarms::rules::{RuleSet, RulesError};
use lizmon_enrol::renewer::Chance;
use lizmon_mtls::Clock;
use lizmon_pki::file_stamp::FileStamp;

use super::AlarmEvaluator;
use crate::store::ShardCount;

/// A channel that fails for less long may only be restarting.
const FAILING_SECS_MIN: u64 = 60;

/// Where rules come from.
#[derive(Clone)]
pub struct AlarmsConfig {
    /// The file; none for the built-in rules, without any channel.
    pub rules: Option<PathBuf>,
    /// Random numbers, so that attempts do not come at the same time.
    pub chance: Chance,
}

impl Default for AlarmsConfig {
    fn default() -> Self {
        Self {
            rules: None,
            chance: Arc::new(|| 0.5),
        }
    }
}

impl fmt::Debug for AlarmsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlarmsConfig")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Rules and channels in force, and the alarms there are.
pub struct Alarms {
    channels: Arc<Channels>,
    board: Arc<AlarmBoard>,
    own_name: String,
    clock: Clock,
    file: Mutex<RulesFile>,
    /// Whether everyone is refused, so that nothing can come from any host.
    refuses_everyone: Arc<AtomicBool>,
    reloads: AtomicU64,
}

#[derive(Debug, Default)]
struct RulesFile {
    path: Option<PathBuf>,
    stamp: Option<FileStamp>,
    /// Why the file as it is now is not in force.
    fault: Option<String>,
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms")
            .field("own_name", &self.own_name)
            .finish_non_exhaustive()
    }
}

impl Alarms {
    /// Reads the rules, and starts their channels as tasks of this runtime.
    pub fn start(
        config: &AlarmsConfig,
        own_name: String,
        clock: Clock,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, RulesError> {
        let stamp = config.rules.as_deref().and_then(FileStamp::of);
        let rules = match &config.rules {
            Some(path) => RuleSet::open(path)?,
            None => RuleSet::built_in()?,
        };
        let board = Arc::<AlarmBoard>::default();
        let channel_clock = ChannelClock {
            now: clock.clone(),
            chance: config.chance.clone(),
        };
        let channels = Channels::start(Arc::new(rules), board.clone(), channel_clock, runtime);
        Ok(Self {
            channels: Arc::new(channels),
            board,
            own_name,
            clock,
            file: Mutex::new(RulesFile {
                path: config.rules.clone(),
                stamp,
                fault: None,
            }),
            refuses_everyone: Arc::default(),
            reloads: AtomicU64::new(0),
        })
    }

    /// Judges the shards of a store by these rules.
    pub fn evaluator(&self, count: ShardCount) -> AlarmEvaluator {
        let (queues, board) = (self.channels.clone(), self.board.clone());
        AlarmEvaluator::new(queues, board, self.own_name.clone(), count)
            .unless(self.refuses_everyone.clone())
    }

    /// The alarms that were judged here.
    pub fn board(&self) -> &AlarmBoard {
        &self.board
    }

    /// Says whether everyone is refused.
    pub fn set_refuses_everyone(&self, refuses: bool) {
        self.refuses_everyone.store(refuses, Ordering::Relaxed);
    }

    /// Puts a changed file of rules in force, if it is a good one. Waits for the disk.
    pub fn reload_if_changed(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = file.path.clone() else {
            return;
        };
        let stamp = FileStamp::of(&path);
        if stamp == file.stamp {
            return;
        }
        file.stamp = stamp;
        match RuleSet::open(&path) {
            Ok(rules) => {
                let (count, channels) = (rules.rules.len(), rules.channels.len());
                tracing::info!(rules = count, channels, "alarm rules reloaded");
                file.fault = None;
                self.reloads.fetch_add(1, Ordering::Relaxed);
                self.channels.replace(Arc::new(rules));
            }
            Err(error) => {
                let fault = in_full(&error);
                tracing::error!(
                    fault,
                    "the changed alarm rules are not in force: the last good ones are"
                );
                file.fault = Some(fault);
            }
        }
    }

    /// Why the file of rules, as it is now, is not in force.
    pub fn fault(&self) -> Option<String> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.fault.clone()
    }

    /// How each channel does.
    pub fn reports(&self) -> Vec<ChannelReport> {
        self.channels.reports()
    }

    /// What an operator is warned of.
    pub fn warnings(&self, now: u64) -> Vec<String> {
        let fault = self.fault().map(|fault| {
            format!("the changed alarm rules are not in force, the last good ones are: {fault}")
        });
        let failing = self.reports().into_iter().filter_map(|report| {
            let (why, since) = report.failing?;
            let secs = now.saturating_sub(since);
            (secs >= FAILING_SECS_MIN).then(|| {
                format!(
                    "the channel {} accepts no alarms, for {secs} s: {why}",
                    report.name
                )
            })
        });
        fault.into_iter().chain(failing).collect()
    }

    /// Sends a test message by a channel, and says what came of it.
    pub async fn test(&self, channel: &str) -> Result<(), TestError> {
        let mut id = [0; 16];
        // Two tests are two messages.
        let _zeros_do = rand::fill(&mut id);
        self.channels
            .test(channel, &hex::encode(id), &self.own_name)
            .await
    }

    /// How many rules are in force, and how often a changed file was put in force.
    pub fn rule_counts(&self) -> (usize, u64) {
        let rules = self.channels.rules().rules.len();
        (rules, self.reloads.load(Ordering::Relaxed))
    }

    /// Epoch seconds.
    pub fn now(&self) -> u64 {
        (self.clock)()
    }
}

fn in_full(error: &RulesError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
