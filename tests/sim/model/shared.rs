//! The model of a store that several receivers share: what counts is what is in the engine's
//! journals.

use std::collections::{HashMap, HashSet};

use lizmon_protocol::summary::Summaries;
use lizmon_receiver::store::record::{SubmissionView, read_group};
use lizmon_summary::{AHEAD_SECS_MAX, TIERS};

use super::Model;
use crate::Violation;
use crate::monitor::RecordId;

/// The clocks of receivers differ by less.
const SKEW_SECS: u64 = 5;

/// A sample without a number that was sent to one of the receivers.
#[derive(Debug)]
pub(super) struct SentOnce {
    epoch: u64,
    /// Its sender got a 204.
    is_acknowledged: bool,
    /// It is in a journal.
    is_counted: bool,
    /// It was, and was forgotten.
    was_forgotten: bool,
}

/// By label.
pub(super) type SentOnceByLabel = HashMap<String, SentOnce>;

impl Model {
    /// A sample without a number is sent, under a unique label.
    pub(crate) fn send_once(&mut self, label: String, epoch: u64) {
        let sent = SentOnce {
            epoch,
            is_acknowledged: false,
            is_counted: false,
            was_forgotten: false,
        };
        self.sent_once.insert(label, sent);
    }

    /// A group is in a journal.
    pub(crate) fn appended(&mut self, group: &[u8], true_now: u64) -> Result<(), Violation> {
        for submission in submissions(group)? {
            let monitor = self.monitor_of(submission.host);
            for record in submission.records() {
                let (Some(monitor), Some(id)) = (monitor, id_of(&submission, record.seq)) else {
                    for (label, _) in record.values() {
                        self.count_once(label)?;
                    }
                    continue;
                };
                let known = self.hosts[monitor].records.get_mut(&id);
                let values: Vec<_> = record.values().collect();
                match known.filter(|known| known.epoch == record.epoch && known.values == values) {
                    Some(known) if !known.is_taken[0] => {
                        known.is_taken[0] = true;
                        known.is_ahead[0] = record.epoch + SKEW_SECS > true_now + AHEAD_SECS_MAX;
                    }
                    Some(_) => (),
                    None => {
                        return Err(Violation(format!(
                            "{id:?} of monitor {monitor} is not as it was recorded"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn count_once(&mut self, label: &str) -> Result<(), Violation> {
        match self.sent_once.get_mut(label) {
            Some(sent) if sent.is_counted => {
                Err(Violation(format!("{label} is in two groups that count")))
            }
            Some(sent) => {
                sent.is_counted = true;
                Ok(())
            }
            // Stamped by a wrong clock: not checked.
            None => Ok(()),
        }
    }

    /// Only these groups are left. Returns how many records were forgotten.
    pub(crate) fn forget_all_but<'a>(
        &mut self,
        left: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64, Violation> {
        let mut ids = HashSet::new();
        let mut labels = HashSet::new();
        for group in left {
            for submission in submissions(group)? {
                for record in submission.records() {
                    match id_of(&submission, record.seq) {
                        Some(id) => drop(ids.insert(id)),
                        None => labels.extend(record.values().map(|(label, _)| label.to_owned())),
                    }
                }
            }
        }
        let mut forgotten = 0;
        for (id, record) in self.hosts.iter_mut().flat_map(|host| &mut host.records) {
            if record.is_taken[0] && !ids.contains(id) {
                record.is_taken[0] = false;
                record.was_forgotten[0] = true;
                forgotten += 1;
            }
        }
        for (label, sent) in &mut self.sent_once {
            if sent.is_counted && !labels.contains(label) {
                sent.is_counted = false;
                sent.was_forgotten = true;
            }
        }
        Ok(forgotten)
    }

    /// A receiver answers with success: what it took is in a journal. `has_forgotten`: whether the
    /// engine has forgotten something since it was appended.
    pub(crate) fn acknowledged(
        &mut self,
        submission: &SubmissionView<'_>,
        has_forgotten: bool,
    ) -> Result<(), Violation> {
        let monitor = self.monitor_of(submission.host);
        for record in submission.records() {
            let id = id_of(submission, record.seq);
            let is_there = match (monitor, id) {
                (Some(monitor), Some(id)) => {
                    let known = self.hosts[monitor].records.get(&id);
                    known.is_some_and(|known| known.is_taken[0])
                }
                _ => record.values().all(|(label, _)| {
                    let sent = self.sent_once.get_mut(label);
                    sent.is_none_or(|sent| {
                        sent.is_acknowledged = true;
                        sent.is_counted
                    })
                }),
            };
            if !is_there && !has_forgotten {
                return Err(Violation(format!(
                    "{id:?} of {} was acknowledged, and no journal has it",
                    submission.host
                )));
            }
        }
        Ok(())
    }

    /// Samples without a number count as often as the journals have them: once if they were
    /// acknowledged and not forgotten, and at most once. Those that no window holds any more are
    /// not asked for.
    pub(crate) fn check_sent_once(&mut self, told: &Summaries, now: u64) -> Result<(), Violation> {
        let oldest = TIERS.iter().map(|tier| tier.window_start(now)).min();
        self.sent_once.retain(|_, sent| Some(sent.epoch) > oldest);
        for (label, sent) in &self.sent_once {
            let name = format!("summary:by-hour:{label}");
            let averages = told.get(&name).map_or(&[][..], |told| &told.averages);
            let count: u64 = averages.iter().map(|average| average.num_samples).sum();
            let is_lost = sent.is_acknowledged && !sent.is_counted && !sent.was_forgotten;
            if count != u64::from(sent.is_counted) || is_lost {
                return Err(Violation(format!(
                    "{label}, {sent:?}, counts {count} times"
                )));
            }
        }
        Ok(())
    }

    fn monitor_of(&self, host: &str) -> Option<usize> {
        let at: usize = host.strip_prefix("web")?.parse().ok()?;
        (at < self.hosts.len()).then_some(at)
    }
}

fn submissions(group: &[u8]) -> Result<Vec<SubmissionView<'_>>, Violation> {
    let submissions = read_group(group);
    submissions.map_err(|_| Violation("a group cannot be read".to_owned()))
}

fn id_of(
    submission: &SubmissionView<'_>,
    seq: Option<lizmon_protocol::sample::Seq>,
) -> Option<RecordId> {
    Some((submission.producer?, seq?.get()))
}
