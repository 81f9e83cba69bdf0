//! Tags that hosts are chosen by.

use std::collections::{BTreeMap, BTreeSet};

use super::Tag;

/// Hosts, by their tags: of several values of one key one is enough, and every key is needed. Without
/// tags it chooses all.
///
/// ```
/// use lizmon_protocol::name::{Tag, TagFilter};
/// let tags = |texts: &[&str]| texts.iter().map(|text| text.parse::<Tag>().unwrap()).collect::<Vec<_>>();
/// let filter: TagFilter = tags(&["env=prod", "env=test", "team=a"]).into_iter().collect();
/// assert!(filter.includes(&tags(&["env=test", "team=a"]).into_iter().collect()));
/// assert!(!filter.includes(&tags(&["env=test"]).into_iter().collect()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagFilter(BTreeMap<String, BTreeSet<Tag>>);

impl TagFilter {
    /// Whether it chooses all hosts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it chooses a host with these tags.
    pub fn includes(&self, tags: &BTreeSet<Tag>) -> bool {
        self.0.values().all(|any| !any.is_disjoint(tags))
    }

    /// As the query of a request: `tag=env=prod&tag=team=a`. No character of a tag needs encoding.
    pub fn to_query(&self) -> String {
        let pairs: Vec<String> = self.tags().map(|tag| format!("tag={tag}")).collect();
        pairs.join("&")
    }

    /// Its tags, by key.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.0.values().flatten()
    }
}

impl FromIterator<Tag> for TagFilter {
    fn from_iter<I: IntoIterator<Item = Tag>>(tags: I) -> Self {
        let mut filter = Self::default();
        for tag in tags {
            let of_key = filter.0.entry(tag.key().to_owned()).or_default();
            of_key.insert(tag);
        }
        filter
    }
}
