//! Flags for the tags of nodes, and for the hosts that a reader is limited to.

use std::str::FromStr;

use clap::Args;
use lizmon_daemon::args::{CommaList, Items, items};
use lizmon_protocol::name::{Attributes, HostPattern, Tag};

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

/// The hosts that a reader may read.
#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    /// Only hosts whose names match one of these patterns; * is any text, ? any character
    #[arg(long, env = "LIZMON_HOSTS", value_name = "PATTERN", num_args = 1.., value_parser = Items(HostPattern::from_str))]
    hosts: Vec<CommaList<HostPattern>>,
    /// Only hosts with these tags; of several values of one key, one is enough
    #[arg(long = "tag", env = "LIZMON_TAG", value_name = "KEY=VALUE", num_args = 1.., value_parser = Items(Tag::from_str))]
    tags: Vec<CommaList<Tag>>,
}

impl LimitFlags {
    pub(crate) fn attributes(self) -> Attributes {
        Attributes {
            hosts: items(self.hosts).into_iter().collect(),
            tags: items(self.tags).into_iter().collect(),
        }
    }
}

/// What the certificate that a join token is for will say.
#[derive(Debug, Args)]
pub(crate) struct JoinAttributeFlags {
    /// Tags of a node, or, with --role reader, of the only hosts that it may read: env=prod
    #[arg(long = "tag", env = "LIZMON_TAG", value_name = "KEY=VALUE", num_args = 1.., value_parser = Items(Tag::from_str))]
    tags: Vec<CommaList<Tag>>,
    /// With --role reader: only hosts whose names match one of these patterns
    #[arg(long, env = "LIZMON_HOSTS", value_name = "PATTERN", num_args = 1.., value_parser = Items(HostPattern::from_str))]
    hosts: Vec<CommaList<HostPattern>>,
}

impl JoinAttributeFlags {
    pub(crate) fn attributes(self) -> Attributes {
        Attributes {
            hosts: items(self.hosts).into_iter().collect(),
            tags: items(self.tags).into_iter().collect(),
        }
    }
}
