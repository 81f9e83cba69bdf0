//! Who let a holder in: the issuer of the first certificate in a chain of renewals, a person or a
//! join token.

use std::collections::{HashMap, HashSet};

use lizmon_ca::ledger::{CertState, Entry};
use lizmon_ca::pki::Profile;
use lizmon_protocol::name::Role;

/// A machine that may come in.
pub(crate) struct LetIn {
    pub(crate) name: String,
    pub(crate) by: String,
    /// When its newest certificate ends: epoch seconds.
    pub(crate) not_after: u64,
}

/// By serial, from the whole ledger in its order: a certificate comes before its renewal.
pub(crate) fn origins(entries: &[Entry]) -> HashMap<String, String> {
    let mut origins: HashMap<String, String> = HashMap::new();
    for entry in entries {
        let of_predecessor = entry.renews.as_ref().and_then(|serial| origins.get(serial));
        let origin = of_predecessor.unwrap_or(&entry.issued_by).clone();
        origins.insert(entry.serial.clone(), origin);
    }
    origins
}

/// Nodes whose newest certificate is valid, those that got it last first.
pub(crate) fn nodes(entries: &[Entry], now: u64) -> Vec<LetIn> {
    let origins = origins(entries);
    let mut shown = HashSet::new();
    let is_valid = |entry: &&Entry| entry.state == CertState::Valid && entry.not_after >= now;
    let nodes = entries.iter().rev();
    let nodes = nodes.filter(|entry| entry.profile == Profile::Leaf(Role::Node));
    nodes
        .filter(|entry| shown.insert(entry.name.clone()))
        .filter(is_valid)
        .map(|entry| LetIn {
            name: entry.name.clone(),
            by: origins.get(&entry.serial).cloned().unwrap_or_default(),
            not_after: entry.not_after,
        })
        .collect()
}
