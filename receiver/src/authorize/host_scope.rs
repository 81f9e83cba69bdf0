//! Which hosts a reader may read, or a gateway write for, as its certificate says.

use std::collections::BTreeSet;

use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{HostPattern, Role, Tag, TagFilter};
use wildmatch::WildMatch;

/// Hosts, by patterns of their names and by their tags.
#[derive(Debug, Default, Clone)]
pub struct HostScope {
    /// As the certificate has them.
    names: BTreeSet<HostPattern>,
    /// One must match; all hosts do if there is none.
    patterns: Vec<WildMatch>,
    tags: TagFilter,
    /// What the request asks for: fewer of them.
    wanted: TagFilter,
}

impl HostScope {
    /// That of a certificate's holder. Only readers and gateways are limited: a node's tags are its
    /// own.
    pub(super) fn of(holder: &Identity) -> Self {
        let mut scope = Self::default();
        if !matches!(holder.spiffe_id.role, Role::Reader | Role::Gateway) {
            return scope;
        }
        let patterns = holder.attributes.hosts.iter();
        scope.patterns = patterns.map(|text| WildMatch::new(text.as_str())).collect();
        scope.names.clone_from(&holder.attributes.hosts);
        scope.tags = holder.attributes.tags.iter().cloned().collect();
        scope
    }

    /// Of its hosts those with these tags.
    pub(super) fn only(self, wanted: TagFilter) -> Self {
        Self { wanted, ..self }
    }

    /// What limits it: patterns of names, and tags.
    pub fn limits(&self) -> Vec<String> {
        let names = self.names.iter().map(HostPattern::to_string);
        names.chain(self.tags.tags().map(Tag::to_string)).collect()
    }

    /// Whether the certificate limits it.
    pub fn is_limited(&self) -> bool {
        !self.patterns.is_empty() || !self.tags.is_empty()
    }

    /// Whether it includes a host with these tags.
    pub fn includes(&self, host: &str, tags: &BTreeSet<Tag>) -> bool {
        let is_named =
            self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(host));
        is_named && self.tags.includes(tags) && self.wanted.includes(tags)
    }

    /// Whether it includes all hosts there are.
    pub fn includes_all(&self) -> bool {
        !self.is_limited() && self.wanted.is_empty()
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
            let said: BTreeSet<String> = scope.limits().into_iter().collect();
            assert!(said.iter().eq(&BTreeSet::from_iter(limits.iter().copied())));
            let other = std::iter::once("other=x".parse().unwrap()).collect();
            assert!(!scope.only(other).includes(host, &tags));
        }
    }

    #[test]
    fn nobody_else_is_limited() {
        for role in ["node", "operator"] {
            assert!(!scope(role, &["env=prod"]).is_limited(), "{role}");
        }
    }
}
