//! Appends groups: `[XADD…, WAIT]` to each primary, in one pipeline.
//!
//! | what happens | what becomes of the groups of that primary |
//! | --- | --- |
//! | every answer is an entry's identifier, and enough replicas have it | appended |
//! | the connection breaks, or no answer comes in time | unknown: appended once more under their numbers, then an error |
//! | the server is no primary any more | appended once more at the one that is, then an error |
//! | too few replicas confirm | an error: they may stay, or be forgotten |
//! | any other error | not appended |
//!
//! Who gets an error sends again: numbered records count once all the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Value};
use uuid::Uuid;

use super::super::shard::{Position, Shard};
use super::super::signing::{GroupSigner, PublishedKey};
use super::config::Address;
use super::connection::checked;
use super::entry::{self, GroupEntry};
use super::error::RedisStoreError;
use super::keys;
use super::nodes::Nodes;
use super::scripts;

/// How long `WAIT` waits for replicas: milliseconds. Shorter than an answer may take.
const WAIT_MILLIS: u64 = 1_000;

type Appended = Result<Position, RedisStoreError>;

/// The writer of one receiver's run.
#[derive(Debug)]
pub(super) struct Appender {
    /// The store's identifier.
    store: String,
    writer: Uuid,
    /// By shard, the number of the last group.
    numbers: Vec<u64>,
    replicas_min: u32,
    /// By shard, which key was published, and on which connection.
    published: HashMap<Shard, (Arc<PublishedKey>, u64)>,
}

/// What goes to one primary.
#[derive(Default)]
struct Pipeline {
    commands: Vec<Cmd>,
    appends: Vec<Append>,
}

/// A group in a pipeline.
struct Append {
    /// Which one.
    at: usize,
    shard: Shard,
    /// Which command appends it.
    command: usize,
    /// Which command before it publishes the key, if one does, and on which connection.
    publish: Option<(usize, u64)>,
}

impl Appender {
    pub(super) fn new(store: String, writer: Uuid, shards: usize, replicas_min: u32) -> Self {
        Self {
            store,
            writer,
            numbers: vec![0; shards],
            replicas_min,
            published: HashMap::new(),
        }
    }

    /// Appends at most one group to each shard. The results are in the order of the groups.
    pub(super) fn append(
        &mut self,
        nodes: &mut Nodes,
        signer: &dyn GroupSigner,
        groups: &[(Shard, &[u8])],
    ) -> Vec<Appended> {
        let Some(key) = signer.key(&self.store).map(Arc::new) else {
            return vec![Err(RedisStoreError::NoSigningKey); groups.len()];
        };
        let sealed = groups
            .iter()
            .map(|(shard, group)| self.seal(signer, &key, *shard, group))
            .collect::<Option<Vec<_>>>();
        let Some(mut entries) = sealed else {
            return vec![Err(RedisStoreError::NoSigningKey); groups.len()];
        };
        let all: Vec<usize> = (0..entries.len()).collect();
        let mut results = vec![Err(RedisStoreError::NoSigningKey); entries.len()];
        self.send(nodes, &key, &entries, &all, &mut results);
        let again: Vec<usize> = all
            .into_iter()
            .filter(|at| {
                results[*at]
                    .as_ref()
                    .is_err_and(RedisStoreError::is_worth_another)
            })
            .collect();
        for at in &again {
            entries[*at].1.attempt += 1;
        }
        self.send(nodes, &key, &entries, &again, &mut results);
        results
    }

    fn seal(
        &mut self,
        signer: &dyn GroupSigner,
        key: &PublishedKey,
        shard: Shard,
        group: &[u8],
    ) -> Option<(Shard, GroupEntry)> {
        let number = self.numbers.get_mut(shard.index())?;
        *number += 1;
        let message = GroupEntry::message(&self.store, shard, self.writer, *number, group);
        let entry = GroupEntry {
            writer: self.writer,
            number: *number,
            key: key.id.clone(),
            signature: signer.sign(&key.id, &message)?,
            group: group.to_vec(),
            attempt: 0,
        };
        Some((shard, entry))
    }

    fn send(
        &mut self,
        nodes: &mut Nodes,
        key: &Arc<PublishedKey>,
        entries: &[(Shard, GroupEntry)],
        which: &[usize],
        results: &mut [Appended],
    ) {
        let mut pipelines = BTreeMap::<Address, Pipeline>::new();
        for at in which {
            let (shard, entry) = &entries[*at];
            let connected = nodes
                .primary(*shard)
                .and_then(|primary| Ok((nodes.connect(&primary)?, primary)));
            match connected {
                Err(error) => results[*at] = Err(error),
                Ok((connection, primary)) => {
                    let pipeline = pipelines.entry(primary).or_default();
                    let publish = self.publish(key, *shard, connection, pipeline);
                    pipeline.appends.push(Append {
                        at: *at,
                        shard: *shard,
                        command: pipeline.commands.len(),
                        publish,
                    });
                    pipeline.commands.push(entry.append(*shard));
                }
            }
        }
        let mut requests = Vec::with_capacity(pipelines.len());
        let mut appends = Vec::with_capacity(pipelines.len());
        for (address, mut pipeline) in pipelines {
            if self.replicas_min > 0 {
                let mut wait = redis::cmd("WAIT");
                wait.arg(self.replicas_min).arg(WAIT_MILLIS);
                pipeline.commands.push(wait);
            }
            requests.push((address, pipeline.commands));
            appends.push(pipeline.appends);
        }
        let answers = nodes.exchange(&requests);
        for (((address, _), appends), answers) in requests.iter().zip(appends).zip(answers) {
            self.conclude(nodes, (address, key), &appends, answers, results);
        }
    }

    /// A key is published beside the journal it signs for, so that a failover cannot forget it and
    /// keep the groups; and again on every new connection, for there may have been a failover. So
    /// is the same key when it is published otherwise, as after a renewal of the certificate. Which
    /// command does it, and on which connection; none if it is published.
    fn publish(
        &self,
        key: &Arc<PublishedKey>,
        shard: Shard,
        connection: u64,
        to: &mut Pipeline,
    ) -> Option<(usize, u64)> {
        let is_published = self
            .published
            .get(&shard)
            .is_some_and(|(published, on)| published == key && *on == connection);
        if is_published {
            return None;
        }
        let publish = scripts::publish_command(keys::keys(shard), &key.id, &key.statement);
        to.commands.push(publish);
        Some((to.commands.len() - 1, connection))
    }

    fn conclude(
        &mut self,
        nodes: &mut Nodes,
        (address, key): (&Address, &Arc<PublishedKey>),
        appends: &[Append],
        answers: Result<Vec<Value>, RedisStoreError>,
        results: &mut [Appended],
    ) {
        let mut answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                for append in appends {
                    results[append.at] = Err(error.clone());
                }
                return;
            }
        };
        let confirmed = match self.replicas_min {
            0 => Ok(()),
            wanted => confirmed(address, answers.pop().unwrap_or(Value::Nil), wanted),
        };
        let mut answer = |command: usize| {
            let answer = answers.get_mut(command).map(std::mem::take);
            answer.unwrap_or(Value::Nil)
        };
        for append in appends {
            // Nobody could read a group whose key is unknown.
            let published = append.publish.map_or(Ok(()), |(command, connection)| {
                checked(address, answer(command))?;
                let published = (key.clone(), connection);
                self.published.insert(append.shard, published);
                Ok(())
            });
            let appended = published.and_then(|()| {
                let position = appended(address, answer(append.command))?;
                confirmed.clone()?;
                Ok(position)
            });
            if let Err(error) = &appended {
                nodes.note(address, error);
            }
            results[append.at] = appended;
        }
    }
}

fn appended(address: &Address, answer: Value) -> Appended {
    let id = checked(address, answer)?;
    let id = String::from_redis_value(id).ok();
    id.as_deref()
        .and_then(entry::position)
        .ok_or_else(|| RedisStoreError::Answer {
            address: address.clone(),
            command: "XADD",
        })
}

fn confirmed(address: &Address, answer: Value, wanted: u32) -> Result<(), RedisStoreError> {
    let replicas = i64::from_redis_value(checked(address, answer)?).unwrap_or(0);
    match replicas >= i64::from(wanted) {
        true => Ok(()),
        false => Err(RedisStoreError::TooFewReplicas {
            address: address.clone(),
            replicas,
            wanted,
        }),
    }
}
