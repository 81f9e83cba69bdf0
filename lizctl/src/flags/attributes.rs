//! Flags for the tags of nodes, for the hosts that a reader may read or a gateway write for, and for
//! those that a verb is about.

use std::str::FromStr;

use clap::Args;
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_protocol::name::{Attributes, HostPattern, Tag, TagFilter};

/// The tags of a node.
#[derive(Debug, Args)]
pub(crate) struct TagFlags {
    /// Tags of the host, which its certificate says and it cannot change: env=prod
    #[arg(long = "tag", env = "LIZMON_TAG", value_name = "KEY=VALUE", num_args = 1.., value_parser = Items(Tag::from_str))]
    tags: Vec<CommaList<Tag>>,
}

impl TagFlags {
    pub(crate) fn attributes(self) -> Attributes {
        Attributes {
            tags: items(self.tags).into_iter().collect(),
            ..Attributes::default()
        }
    }
}

/// The hosts that a gateway may write for.
#[derive(Debug, Args)]
pub(crate) struct GatewayFlags {
    /// The hosts that it may write for: those whose names match one of these patterns; * is any text,
    /// ? any character
    #[arg(long, env = "LIZMON_HOSTS", value_name = "PATTERN", num_args = 1.., required = true, value_parser = Items(HostPattern::from_str))]
    hosts: Vec<CommaList<HostPattern>>,
    /// Of these only hosts with these tags, which they have once their own certificates got a token; of
    /// several values of one key, one is enough
    #[arg(long = "tag", env = "LIZMON_TAG", value_name = "KEY=VALUE", num_args = 1.., value_parser = Items(Tag::from_str))]
    tags: Vec<CommaList<Tag>>,
}

impl GatewayFlags {
    pub(crate) fn attributes(self) -> Attributes {
        Attributes {
            hosts: items(self.hosts).into_iter().collect(),
            tags: items(self.tags).into_iter().collect(),
        }
    }
}

/// What a certificate says beside the identity: the tags of a node, or the hosts that a reader may
/// read, or a gateway write for.
#[derive(Debug, Args)]
pub(crate) struct AttributeFlags {
    /// Of a reader or gateway: only hosts whose names match one of these patterns; * is any text, ?
    /// any character. A gateway needs one
    #[arg(long, env = "LIZMON_HOSTS", value_name = "PATTERN", num_args = 1.., value_parser = Items(HostPattern::from_str))]
    hosts: Vec<CommaList<HostPattern>>,
    /// Of a reader or gateway: only hosts with these tags; of several values of one key, one is
    /// enough. Of a node: its tags
    #[arg(long = "tag", env = "LIZMON_TAG", value_name = "KEY=VALUE", num_args = 1.., value_parser = Items(Tag::from_str))]
    tags: Vec<CommaList<Tag>>,
}

impl AttributeFlags {
    pub(crate) fn attributes(self) -> Attributes {
        Attributes {
            hosts: items(self.hosts).into_iter().collect(),
            tags: items(self.tags).into_iter().collect(),
        }
    }
}

/// The hosts that a verb is about.
#[derive(Debug, Args)]
pub(crate) struct TagFilterFlags {
    /// Only hosts with these tags: env=prod; of several values of one key, one is enough
    #[arg(long = "tag", env = "LIZMON_TAG", value_name = "KEY=VALUE", num_args = 1.., value_parser = Items(Tag::from_str))]
    wanted: Vec<CommaList<Tag>>,
}

impl TagFilterFlags {
    pub(crate) fn filter(&self) -> TagFilter {
        items(self.wanted.clone()).into_iter().collect()
    }
}
