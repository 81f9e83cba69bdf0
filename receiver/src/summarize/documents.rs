//! The documents of a host or a shard in memory, and which of them changed.
//!
//! What every list of hosts shows is parsed once, when it is asked for first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use lizmon_protocol::facts::Facts;
use lizmon_protocol::name::Tag;

use super::metric_kinds::MetricKinds;
use crate::store::{DOCUMENT_BYTES_MAX, DocumentKind, StoredDocument};

#[derive(Debug)]
struct Kept {
    /// Empty once it was removed, until that is committed.
    body: Box<[u8]>,
    is_changed: bool,
}

/// Documents by kind.
#[derive(Debug, Default)]
pub struct Documents {
    kept: BTreeMap<DocumentKind, Kept>,
    tags: OnceLock<BTreeSet<Tag>>,
    facts: OnceLock<Option<Box<Facts>>>,
    metric_kinds: OnceLock<Arc<MetricKinds>>,
}

impl Documents {
    /// The tags, as the certificate of the host says them.
    pub fn tags(&self) -> &BTreeSet<Tag> {
        self.tags.get_or_init(|| {
            let body = self.get(DocumentKind::Tags).unwrap_or_default();
            let text = std::str::from_utf8(body).unwrap_or_default();
            // One that does not parse gives no access.
            text.lines().filter_map(|tag| tag.parse().ok()).collect()
        })
    }

    /// What the monitor says of the machine.
    pub fn facts(&self) -> Option<&Facts> {
        let facts = self.facts.get_or_init(|| {
            // It was checked before it was stored.
            let facts = Facts::parse(self.get(DocumentKind::Facts)?).ok()?;
            Some(Box::new(facts))
        });
        facts.as_deref()
    }

    /// Which metrics are counters, where metadata says otherwise than names.
    pub fn metric_kinds(&self) -> &Arc<MetricKinds> {
        self.metric_kinds.get_or_init(|| {
            let body = self.get(DocumentKind::MetricKinds).unwrap_or_default();
            Arc::new(MetricKinds::read(body))
        })
    }

    /// The body of the document of this kind.
    pub fn get(&self, kind: DocumentKind) -> Option<&[u8]> {
        let kept = self.kept.get(&kind)?;
        (!kept.body.is_empty()).then_some(&*kept.body)
    }

    /// Replaces the document of this kind; an empty body removes it. Says whether that changed
    /// anything. A body over [`DOCUMENT_BYTES_MAX`] changes nothing.
    pub fn set(&mut self, kind: DocumentKind, body: &[u8]) -> bool {
        if body.len() > DOCUMENT_BYTES_MAX || self.get(kind).unwrap_or_default() == body {
            return false;
        }
        let kept = Kept {
            body: body.into(),
            is_changed: true,
        };
        self.kept.insert(kind, kept);
        (self.tags, self.facts, self.metric_kinds) = Default::default();
        true
    }

    /// Those that were stored.
    pub(super) fn restore(stored: Vec<StoredDocument>) -> Self {
        let kept = stored.into_iter().map(|document| {
            let kept = Kept {
                body: document.body,
                is_changed: false,
            };
            (document.kind, kept)
        });
        Self {
            kept: kept.collect(),
            ..Self::default()
        }
    }

    /// Those that changed since the last commit.
    pub(super) fn changed(&self) -> Vec<StoredDocument> {
        self.stored(|kept| kept.is_changed)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<StoredDocument> {
        self.stored(|kept| !kept.body.is_empty())
    }

    fn stored(&self, is_given: impl Fn(&Kept) -> bool) -> Vec<StoredDocument> {
        let given = self.kept.iter().filter(|(_, kept)| is_given(kept));
        let stored = given.map(|(kind, kept)| StoredDocument {
            kind: *kind,
            body: kept.body.clone(),
        });
        stored.collect()
    }

    /// What changed is committed.
    pub(super) fn clear_changed(&mut self) {
        self.kept.retain(|_, kept| !kept.body.is_empty());
        for kept in self.kept.values_mut() {
            kept.is_changed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: DocumentKind, body: &[u8]) -> StoredDocument {
        StoredDocument {
            kind,
            body: body.into(),
        }
    }

    #[test]
    fn what_changed_is_known_until_it_is_committed() {
        let mut documents = Documents::restore(vec![document(DocumentKind::Silence, b"old")]);
        assert!(documents.changed().is_empty());
        assert!(documents.set(DocumentKind::Facts, b"{}"));
        assert!(!documents.set(DocumentKind::Facts, b"{}"), "the same");
        assert!(documents.set(DocumentKind::Silence, b""));
        assert_eq!(documents.get(DocumentKind::Silence), None);
        let facts = document(DocumentKind::Facts, b"{}");
        let removed = document(DocumentKind::Silence, b"");
        assert_eq!(documents.changed(), [facts.clone(), removed]);
        assert_eq!(documents.all(), std::slice::from_ref(&facts));
        documents.clear_changed();
        assert!(documents.changed().is_empty());
        assert_eq!(documents.all(), [facts]);
        assert!(!documents.set(DocumentKind::Silence, b""), "there is none");
    }

    #[test]
    fn a_body_has_a_maximum_size() {
        let mut documents = Documents::default();
        assert!(documents.set(DocumentKind::Facts, &[b' '; DOCUMENT_BYTES_MAX]));
        assert!(!documents.set(DocumentKind::Facts, &[b' '; DOCUMENT_BYTES_MAX + 1]));
        let kept = documents.get(DocumentKind::Facts).map(<[u8]>::len);
        assert_eq!(kept, Some(DOCUMENT_BYTES_MAX));
    }

    #[test]
    fn what_was_parsed_is_of_the_newest_body() {
        let mut documents = Documents::default();
        assert!(documents.tags().is_empty() && documents.facts().is_none());
        let tags = |documents: &Documents| -> Vec<String> {
            let tags = documents.tags().iter();
            tags.map(ToString::to_string).collect()
        };
        for body in ["env=prod\nteam=shop", "env=test", ""] {
            documents.set(DocumentKind::Tags, body.as_bytes());
            assert_eq!(tags(&documents), body.lines().collect::<Vec<_>>());
        }
        for body in [r#"{"kernel":"6.1"}"#, r#"{"kernel":"6.12"}"#, ""] {
            documents.set(DocumentKind::Facts, body.as_bytes());
            let facts = documents.facts().map(serde_json::to_string);
            assert_eq!(facts.transpose().unwrap().unwrap_or_default(), body);
        }
        let stored = vec![document(DocumentKind::Tags, b"env=prod")];
        assert_eq!(tags(&Documents::restore(stored)), ["env=prod"]);
    }
}
