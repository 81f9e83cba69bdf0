//! Tells: each channel has a queue and a task of its own, so that one that hangs delays no other,
//! and holds up nobody who judges.
//!
//! A message is sent again until the channel accepts it, later each time, for a day at most. Who
//! sends it is told which channel accepted it ([`Accepted`]), and keeps it until then.

mod alertmanager;
mod command;
mod error;
mod http;
mod mail;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::alertmanager::Alertmanager;
use self::command::Command;
pub use self::error::TellError;
use self::mail::Mail;
use self::webhook::Webhook;
use crate::board::AlarmBoard;
use crate::message::Message;
use crate::rules::{ChannelConfig, ChannelKind, RuleSet};
use crate::state::AlarmNotice;

/// How many messages wait in a channel's queue; more wait where they come from.
const QUEUE_MAX: usize = 256;
/// After a failure the next attempt is so long after it, then twice that, and so on.
const BACKOFF_SECS: f64 = 1.0;
/// No longer than this.
const BACKOFF_SECS_MAX: f64 = 120.0;
/// A message that no attempt could deliver for so long is given up.
const GIVE_UP_SECS: u64 = 86_400;
/// How long a test message may take.
const TEST_SECS_MAX: u64 = 20;

/// Time and chance for the channels.
#[derive(Clone)]
pub struct ChannelClock {
    /// Epoch seconds.
    pub now: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A number from 0 to 1.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for ChannelClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelClock").finish_non_exhaustive()
    }
}

/// A message that a channel has accepted, or that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The host.
    pub host: String,
    /// The notice.
    pub notice: String,
    /// The channel.
    pub channel: String,
}

/// How a channel does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelReport {
    /// Its name.
    pub name: String,
    /// How it tells.
    pub kind: &'static str,
    /// How many messages it has accepted.
    pub accepted: u64,
    /// How many attempts failed.
    pub failed: u64,
    /// How many messages were given up.
    pub given_up: u64,
    /// Why the last attempt failed, if it did, and since when attempts fail.
    pub failing: Option<(String, u64)>,
}

/// Why there is no test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestError {
    /// There is no such channel.
    #[error("there is no such channel")]
    Unknown,
    /// It was not accepted.
    #[error(transparent)]
    Refused(#[from] TellError),
}

/// Where notices go, and how it is known what was accepted.
pub trait NoticeQueues: Send + Sync {
    /// The rules in force.
    fn rules(&self) -> Arc<RuleSet>;

    /// Which run of a channel there is; none if there is no such channel. What an earlier run had
    /// in its queue is to be sent again.
    fn run_of(&self, channel: &str) -> Option<u64>;

    /// Puts a notice into a channel's queue. Says whether it took it. Never waits.
    fn send(&self, channel: &str, host: &str, notice: &AlarmNotice) -> bool;

    /// What was accepted since the last time.
    fn take_accepted(&self) -> Vec<Accepted>;
}

/// A notice in a queue.
#[derive(Debug)]
struct Queued {
    host: String,
    notice: AlarmNotice,
    rules: Arc<RuleSet>,
}

/// All channels. They run until this is dropped.
#[derive(Debug)]
pub struct Channels {
    clock: ChannelClock,
    board: Arc<AlarmBoard>,
    runtime: tokio::runtime::Handle,
    /// Also those that a channel which goes on repeats by.
    rules: Arc<RwLock<Arc<RuleSet>>>,
    running: RwLock<BTreeMap<String, Running>>,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    runs: AtomicU64,
}

#[derive(Debug)]
struct Running {
    config: ChannelConfig,
    queue: mpsc::Sender<Queued>,
    status: Arc<ChannelStatus>,
    task: AbortHandle,
    /// Tells this run from those before.
    run: u64,
}

#[derive(Debug, Default)]
struct ChannelStatus {
    accepted: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    failing: Mutex<Option<(String, u64)>>,
}

impl Channels {
    /// The channels of these rules, as tasks of this runtime.
    pub fn start(
        rules: Arc<RuleSet>,
        board: Arc<AlarmBoard>,
        clock: ChannelClock,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let channels = Self {
            clock,
            board,
            runtime,
            rules: Arc::new(RwLock::new(rules.clone())),
            running: RwLock::default(),
            accepted: Arc::default(),
            runs: AtomicU64::new(0),
        };
        channels.replace(rules);
        channels
    }

    /// Puts other rules in force. A channel that has not changed goes on; what waits in the queue
    /// of one that has is to be sent again.
    pub fn replace(&self, rules: Arc<RuleSet>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        running.retain(|name, channel| rules.channels.get(name) == Some(&channel.config));
        for (name, config) in &rules.channels {
            if !running.contains_key(name) {
                running.insert(name.clone(), self.run(name, config));
            }
        }
    }

    fn run(&self, name: &str, config: &ChannelConfig) -> Running {
        let (queue, notices) = mpsc::channel(QUEUE_MAX);
        let status = Arc::<ChannelStatus>::default();
        let worker = Worker {
            name: name.to_owned(),
            means: Means::new(config.kind.clone()),
            limit: Duration::from_secs(config.timeout_secs),
            notices,
            status: status.clone(),
            accepted: self.accepted.clone(),
            clock: self.clock.clone(),
        };
        let task = match &config.kind {
            ChannelKind::Alertmanager(alertmanager) => {
                let every = Duration::from_secs(alertmanager.refresh_secs);
                let (board, rules) = (self.board.clone(), self.rules.clone());
                self.runtime
                    .spawn(worker.run_and_refresh(every, board, rules))
            }
            _ => self.runtime.spawn(worker.run()),
        };
        Running {
            config: config.clone(),
            queue,
            status,
            task: task.abort_handle(),
            run: self.runs.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    /// How each channel does.
    pub fn reports(&self) -> Vec<ChannelReport> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let report = |(name, channel): (&String, &Running)| {
            let status = &channel.status;
            let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let failing = status
                .failing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            ChannelReport {
                name: name.clone(),
                kind: channel.config.kind.name(),
                accepted: count(&status.accepted),
                failed: count(&status.failed),
                given_up: count(&status.given_up),
                failing: failing.clone(),
            }
        };
        running.iter().map(report).collect()
    }

    /// Sends a test message by this channel, once, and says what came of it.
    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant"
    )]
    pub async fn test(&self, name: &str, id: &str, host: &str) -> Result<(), TestError> {
        let rules = self.rules();
        let config = rules.channels.get(name).ok_or(TestError::Unknown)?;
        let mut means = Means::new(config.kind.clone());
        let now = (self.clock.now)();
        let message = Message::test(id, host, now);
        let limit = Duration::from_secs(config.timeout_secs.min(TEST_SECS_MAX));
        let told = tokio::time::timeout(limit, means.tell(&message, now)).await;
        Ok(told.unwrap_or_else(|_| Err(timed_out(limit)))?)
    }
}

impl NoticeQueues for Channels {
    fn rules(&self) -> Arc<RuleSet> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    fn run_of(&self, channel: &str) -> Option<u64> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.get(channel).map(|channel| channel.run)
    }

    fn send(&self, channel: &str, host: &str, notice: &AlarmNotice) -> bool {
        let rules = self.rules();
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let queued = Queued {
            host: host.to_owned(),
            notice: notice.clone(),
            rules,
        };
        let channel = running.get(channel);
        channel.is_some_and(|channel| channel.queue.try_send(queued).is_ok())
    }

    fn take_accepted(&self) -> Vec<Accepted> {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *accepted)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn timed_out(limit: Duration) -> TellError {
    TellError::passing(format_args!("no answer within {} s", limit.as_secs()))
}

/// One way to tell.
#[derive(Debug)]
enum Means {
    Webhook(Webhook),
    Alertmanager(Alertmanager),
    Mail(Box<Mail>),
    Command(Command),
}

impl Means {
    fn new(kind: ChannelKind) -> Self {
        match kind {
            ChannelKind::Webhook(config) => Self::Webhook(Webhook::new(config)),
            ChannelKind::Alertmanager(config) => Self::Alertmanager(Alertmanager::new(config)),
            ChannelKind::Mail(config) => Self::Mail(Box::new(Mail::new(config))),
            ChannelKind::Command(config) => Self::Command(Command::new(config)),
        }
    }

    async fn tell(&mut self, message: &Message, now: u64) -> Result<(), TellError> {
        match self {
            Self::Webhook(webhook) => webhook.tell(message, now).await,
            Self::Alertmanager(alertmanager) => {
                alertmanager.tell(std::slice::from_ref(message), now).await
            }
            Self::Mail(mail) => mail.tell(message).await,
            Self::Command(command) => command.tell(message).await,
        }
    }
}

/// The task of a channel.
struct Worker {
    name: String,
    means: Means,
    limit: Duration,
    notices: mpsc::Receiver<Queued>,
    status: Arc<ChannelStatus>,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    clock: ChannelClock,
}

impl Worker {
    async fn run(mut self) {
        while let Some(queued) = self.notices.recv().await {
            self.deliver(queued).await;
        }
    }

    /// The same, and repeats what fires: Alertmanager takes what is not repeated for ended.
    #[expect(clippy::disallowed_methods, reason = "paces background work")]
    async fn run_and_refresh(
        mut self,
        every: Duration,
        board: Arc<AlarmBoard>,
        rules: Arc<RwLock<Arc<RuleSet>>>,
    ) {
        let mut refresh = tokio::time::interval(every);
        loop {
            tokio::select! {
                queued = self.notices.recv() => match queued {
                    Some(queued) => self.deliver(queued).await,
                    None => return,
                },
                _ = refresh.tick() => {
                    let rules = rules.read().unwrap_or_else(PoisonError::into_inner).clone();
                    self.refresh(&board, &rules).await;
                }
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "enforces the limit of the channel's configuration"
    )]
    async fn refresh(&mut self, board: &AlarmBoard, rules: &RuleSet) {
        let now = (self.clock.now)();
        let Means::Alertmanager(alertmanager) = &mut self.means else {
            return;
        };
        let messages = alertmanager::firing(&self.name, board, rules);
        for some in messages.chunks(alertmanager::ALERTS_AT_ONCE_MAX) {
            let told = tokio::time::timeout(self.limit, alertmanager.tell(some, now)).await;
            let told = told.unwrap_or_else(|_| Err(timed_out(self.limit)));
            self.status.note(&self.name, &told, now);
        }
    }

    /// Until it is accepted, or given up.
    #[expect(clippy::disallowed_methods, reason = "waits before it tries again")]
    async fn deliver(&mut self, queued: Queued) {
        let Queued {
            host,
            notice,
            rules,
        } = queued;
        let message = Message::new(&host, &notice, &rules);
        let mut failures = 0;
        loop {
            let now = (self.clock.now)();
            let told = tokio::time::timeout(self.limit, self.means.tell(&message, now)).await;
            let told = told.unwrap_or_else(|_| Err(timed_out(self.limit)));
            self.status.note(&self.name, &told, now);
            let error = match told {
                Ok(()) => {
                    self.status.accepted.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(error) => error,
            };
            let is_late = notice.at.saturating_add(GIVE_UP_SECS) < now;
            if error.is_permanent || is_late {
                self.status.given_up.fetch_add(1, Ordering::Relaxed);
                let (channel, notice) = (&self.name, &notice.id);
                tracing::error!(channel, notice, %error, "a message is given up");
                break;
            }
            let wait = backoff(failures, (self.clock.chance)());
            failures += 1;
            tokio::time::sleep(error.retry_after.map_or(wait, |after| after.max(wait))).await;
        }
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.push(Accepted {
            host,
            notice: notice.id,
            channel: self.name.clone(),
        });
    }
}

impl ChannelStatus {
    /// Notes an attempt, and logs when attempts begin to fail and when they work again.
    fn note(&self, channel: &str, told: &Result<(), TellError>, now: u64) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::info!(channel, "the channel accepts messages again");
                }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let since = failing.as_ref().map_or(now, |(_, since)| *since);
                if failing.is_none() {
                    tracing::warn!(channel, %error, "a message is not accepted: trying again");
                }
                *failing = Some((error.why.clone(), since));
            }
        }
    }
}

/// How long to wait after so many failures before this one.
fn backoff(failures: u32, chance: f64) -> Duration {
    let secs = BACKOFF_SECS * 2_f64.powi(failures.min(30).cast_signed());
    let secs = secs.min(BACKOFF_SECS_MAX) * (0.75 + chance.clamp(0.0, 1.0) / 2.0);
    Duration::from_secs_f64(secs)
}

#[cfg(test)]
mod tests;
