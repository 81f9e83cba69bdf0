//! The metrics of a store that several processes share.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::{Registry, Unit};

use super::gauges::gauges;
use crate::store::ServerReading;
use crate::watch::{StoreFigures, WatchStatus, WatchedShard};

/// Registers them: what this process has done is counted, everything else is looked up.
pub(super) fn register(registry: &mut Registry, watch: Arc<WatchStatus>) {
    watch.counts().register(registry);
    registry.register_collector(Box::new(SharedStore(watch)));
}

#[derive(Debug)]
struct SharedStore(Arc<WatchStatus>);

impl Collector for SharedStore {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.0.figures();
        encode_servers(&mut encoder, &figures)?;
        encode_shards(&mut encoder, &figures)?;
        let members = figures.members.iter();
        gauges(
            &mut encoder,
            "store_members",
            "Processes that share the store, by role",
            None,
            members.map(|(role, count)| ([("role", role.name().to_owned())], *count)),
        )
    }
}

fn encode_servers(
    encoder: &mut DescriptorEncoder<'_>,
    figures: &StoreFigures,
) -> Result<(), fmt::Error> {
    let each = |value: fn(&ServerReading, bool) -> Option<u64>| {
        let servers = figures.servers.iter();
        servers
            .filter_map(|(server, is_full)| {
                let labels = [("server", server.name.clone())];
                Some((labels, value(server, *is_full)?))
            })
            .collect::<Vec<_>>()
    };
    gauges(
        encoder,
        "store_memory_used",
        "Memory that a store's server uses of its limit",
        Some(&Unit::Bytes),
        each(|server, _| Some(server.used_bytes)),
    )?;
    gauges(
        encoder,
        "store_memory_limit",
        "maxmemory of a store's server, or the machine's memory without one",
        Some(&Unit::Bytes),
        each(|server, _| server.limit_bytes),
    )?;
    gauges(
        encoder,
        "store_full",
        "1 while a store's server is above the high-water mark: its samples are refused",
        None,
        each(|_, is_full| Some(is_full.into())),
    )
}

fn encode_shards(
    encoder: &mut DescriptorEncoder<'_>,
    figures: &StoreFigures,
) -> Result<(), fmt::Error> {
    let each = |value: fn(&WatchedShard) -> Option<u64>| {
        let shards = figures.shards.iter();
        shards
            .filter_map(|shard| {
                let number = shard.reading.shard.number().to_string();
                Some(([("shard", number)], value(shard)?))
            })
            .collect::<Vec<_>>()
    };
    gauges(
        encoder,
        "shard_waiting_groups",
        "Groups of a shard's journal that are not committed",
        None,
        each(|shard| Some(shard.reading.waiting_groups)),
    )?;
    gauges(
        encoder,
        "shard_waiting",
        "For how long groups of a shard have waited without one that was committed",
        Some(&Unit::Seconds),
        each(|shard| Some(shard.waiting_secs)),
    )?;
    gauges(
        encoder,
        "shard_journal",
        "Memory that a shard's journal takes up",
        Some(&Unit::Bytes),
        each(|shard| shard.reading.journal_bytes),
    )?;
    gauges(
        encoder,
        "shard_leased",
        "1 while a summarizer has the shard",
        None,
        each(|shard| Some(shard.reading.is_owned.into())),
    )
}
