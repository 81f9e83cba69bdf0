//! Requests at a constant rate, each measured from when it was due.
//!
//! When each is due was fixed in advance, so that what waits behind a slow one is measured as well:
//! otherwise the pause of a receiver would count once instead of for all that it kept waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use lizmon_protocol::route;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::link::{Link, Message};
use super::site::now;

/// What a stream of requests is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// A sample over a connection that stays.
    Post,
    /// The summaries of a host.
    Get,
    /// A handshake, a token and a sample.
    Arrive,
    /// `/healthz`.
    Health,
    /// A sample of a monitor whose connection is gone, sent until it is taken.
    Return,
}

/// Requests of one kind, divided among connections.
pub(super) struct Stream {
    pub(super) what: What,
    /// Of all together: requests a second.
    pub(super) rate: f64,
    pub(super) links: Vec<Link>,
    /// Which host is asked for.
    pub(super) host: String,
    /// By how much the receiver's clock is ahead.
    pub(super) ahead_secs: u64,
}

/// What became of one request.
pub(super) struct Shot {
    pub(super) due: Duration,
    pub(super) took: Duration,
    /// Why each attempt was not answered well.
    pub(super) errors: Vec<String>,
}

/// The sample of a monitor: ten values.
pub(super) fn sample() -> Bytes {
    let values: BTreeMap<_, _> = (0..10).map(|at| (label(at), 4.98 + at as f64)).collect();
    Bytes::from(serde_json::to_vec(&values).unwrap_or_default())
}

pub(super) fn label(at: usize) -> String {
    format!("label{at}")
}

impl What {
    pub(super) fn message(self, host: &str, epoch: u64, sample: &Bytes) -> Message {
        let (method, path) = match self {
            Self::Post | Self::Arrive | Self::Return => {
                (Method::POST, format!("{}/{host}/{epoch}", route::PERF))
            }
            Self::Get => (Method::GET, format!("{}/{host}", route::PERF)),
            Self::Health => (Method::GET, route::HEALTHZ.to_owned()),
        };
        let body = match method == Method::POST {
            true => sample.clone(),
            false => Bytes::new(),
        };
        Message { method, path, body }
    }
}

impl Stream {
    fn host_of<'a>(&'a self, link: &'a Link) -> &'a str {
        match self.what {
            What::Post | What::Arrive | What::Return => &link.identity.name,
            What::Get | What::Health => &self.host,
        }
    }

    /// Connects all of them, with one request each.
    pub(super) async fn connect(&mut self) -> Result<()> {
        const AT_ONCE: usize = 64;
        let (what, ahead, sample) = (self.what, self.ahead_secs, sample());
        let mut waiting = std::mem::take(&mut self.links).into_iter();
        let mut connecting = JoinSet::new();
        loop {
            for mut link in waiting.by_ref().take(AT_ONCE - connecting.len()) {
                let host = match what {
                    What::Get | What::Health => self.host.clone(),
                    _ => link.identity.name.clone(),
                };
                let message = what.message(&host, now() + ahead, &sample);
                connecting.spawn(async move {
                    let answer = link.send(&message).await;
                    (link, answer)
                });
            }
            let Some(connected) = connecting.join_next().await else {
                return Ok(());
            };
            let (link, answer) = connected.context("a connection")?;
            let answer = answer.map_err(anyhow::Error::msg).context("connected")?;
            let said = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status.is_success(), "{}: {said}", answer.status);
            self.links.push(link);
        }
    }

    /// Sends until `lasting` after `start`, and waits for the last answers.
    pub(super) async fn run(self, start: Instant, lasting: Duration) -> Result<(What, Vec<Shot>)> {
        let (what, rate, ahead) = (self.what, self.rate, self.ahead_secs);
        let hosts: Vec<_> = self
            .links
            .iter()
            .map(|link| self.host_of(link).to_owned())
            .collect();
        let (mut queues, mut workers) = (Vec::new(), JoinSet::new());
        let sample = sample();
        for (mut link, host) in self.links.into_iter().zip(hosts) {
            let (queue, mut waiting) = mpsc::unbounded_channel();
            queues.push(queue);
            let sample = sample.clone();
            workers.spawn(async move {
                let mut shots = Vec::new();
                while let Some(due) = waiting.recv().await {
                    if what == What::Arrive {
                        link.forget();
                    }
                    let message = what.message(&host, now() + ahead, &sample);
                    let errors = match link.send(&message).await {
                        Ok(answer) if answer.status.is_success() => Vec::new(),
                        Ok(answer) => vec![answer.status.as_u16().to_string()],
                        Err(why) => vec![why.to_owned()],
                    };
                    let took = start.elapsed().saturating_sub(due);
                    shots.push(Shot { due, took, errors });
                }
                shots
            });
        }
        let pacer = tokio::task::spawn_blocking(move || pace(start, rate, lasting, &queues));
        pacer.await.context("the pacer")?;
        let shots = workers.join_all().await;
        Ok((what, shots.into_iter().flatten().collect()))
    }
}

/// Gives each request to its connection when it is due. On a thread of its own: the timers of tokio
/// are a millisecond coarse.
fn pace(start: Instant, rate: f64, lasting: Duration, queues: &[mpsc::UnboundedSender<Duration>]) {
    for (number, queue) in (0_u64..).zip(queues.iter().cycle()) {
        let due = Duration::from_secs_f64(number as f64 / rate);
        if due >= lasting {
            return;
        }
        if let Some(wait) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(wait);
        }
        let _worker_failed = queue.send(due);
    }
}
