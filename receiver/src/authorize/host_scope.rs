//! Which hosts a reader may read, as its certificate says.

use std::collections::{BTreeMap, BTreeSet};

use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{Role, Tag};
use wildmatch::WildMatch;

/// Hosts, by patterns of their names and by their tags.
#[derive(Debug, Default, Clone)]
pub struct HostScope {
    /// One must match; all hosts do if there is none.
    patterns: Vec<WildMatch>,
    /// By key the tags of which a host must have one.
    tags: BTreeMap<String, BTreeSet<Tag>>,
}

impl HostScope {
    /// That of a certificate's holder. Only readers are limited: a node's tags are its own.
    pub(super) fn of(holder: &Identity) -> Self {
        let mut scope = Self::default();
        if holder.spiffe_id.role != Role::Reader {
            return scope;
        }
        let patterns = holder.attributes.hosts.iter();
        scope.patterns = patterns.map(|text| WildMatch::new(text.as_str())).collect();
        for tag in &holder.attributes.tags {
            let of_key = scope.tags.entry(tag.key().to_owned()).or_default();
            of_key.insert(tag.clone());
        }
        scope
    }

    /// Whether there are hosts that it does not include.
    pub fn is_limited(&self) -> bool {
        !self.patterns.is_empty() || !self.tags.is_empty()
    }

    /// Whether it includes a host with these tags.
    pub fn includes(&self, host: &str, tags: &BTreeSet<Tag>) -> bool {
        let is_named =
            self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(host));
        is_named && self.tags.values().all(|any| !any.is_disjoint(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lizmon_protocol::name::Attributes;

    fn scope(role: &str, texts: &[&str]) -> HostScope {
        HostScope::of(&Identity {
            spiffe_id: format!("spiffe://d/{role}/a").parse().unwrap(),
            attributes: Attributes::of_texts(texts.iter().copied()).unwrap(),
            serial: Box::new([1]),
            thumbprint: [1; 32],
            not_before: 0,
            not_after: 9,
        })
    }

    #[test]
    fn names_and_tags_limit_a_reader() {
        for (limits, host, tags, included) in [
            (&[][..], "web1", &[][..], true),
            (&["web*"], "web1", &[], true),
            (&["web*"], "db1", &[], false),
            (&["web*"], "my-web1", &[], false),
            (&["web*", "db?"], "db1", &[], true),
            (&["web*", "db?"], "db10", &[], false),
            (&["Web*"], "web1", &[], false),
            (&["web1"], "web1.example", &[], false),
            (&["env=prod"], "web1", &[], false),
            (&["env=prod"], "web1", &["env=prod", "team=a"], true),
            (&["env=prod"], "web1", &["env=production"], false),
            (&["env=prod", "env=test"], "web1", &["env=test"], true),
            (&["env=prod", "team=a"], "web1", &["env=prod"], false),
            (
                &["env=prod", "team=a"],
                "web1",
                &["env=prod", "team=a"],
                true,
            ),
            (&["web*", "env=prod"], "web1", &["env=prod"], true),
            (&["web*", "env=prod"], "db1", &["env=prod"], false),
            (&["web*", "env=prod"], "web1", &["env=test"], false),
        ] {
            let scope = scope("reader", limits);
            let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            let found = scope.includes(host, &tags);
            assert_eq!(found, included, "{limits:?}: {host} {tags:?}");
            assert_eq!(scope.is_limited(), !limits.is_empty());
        }
    }

    #[test]
    fn nobody_else_is_limited() {
        for role in ["node", "operator"] {
            assert!(!scope(role, &["env=prod"]).is_limited(), "{role}");
        }
    }
}
