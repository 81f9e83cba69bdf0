//! Which rules judge which labels. Remembered: a fleet has many series and few labels.

use std::collections::HashMap;
use std::sync::Arc;

use lizmon_alarms::rules::{Rule, RuleKind, RuleSet};

/// How many labels are remembered: more than any fleet should have. Then it begins anew.
const LABELS_MAX: usize = 100_000;

/// The rules in force, and which of them a label is judged by.
#[derive(Debug)]
pub(super) struct Matcher {
    rules: Arc<RuleSet>,
    /// Indices of the rules that judge labels.
    label_rules: Vec<u16>,
    by_label: HashMap<Box<str>, Box<[u16]>>,
}

impl Matcher {
    pub(super) fn new(rules: Arc<RuleSet>) -> Self {
        let is_of_labels = |rule: &Rule| matches!(rule.kind, RuleKind::Label(_));
        let label_rules = (0..).zip(&rules.rules);
        let label_rules = label_rules.filter(|(_, rule)| is_of_labels(rule));
        Self {
            label_rules: label_rules.map(|(at, _)| at).collect(),
            by_label: HashMap::new(),
            rules,
        }
    }

    /// Says whether the rules are others than before.
    pub(super) fn take(&mut self, rules: Arc<RuleSet>) -> bool {
        let are_others = !Arc::ptr_eq(&rules, &self.rules);
        if are_others {
            *self = Self::new(rules);
        }
        are_others
    }

    pub(super) fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// The indices of the rules that judge this label, of whatever host.
    pub(super) fn of_label(&mut self, label: &str) -> &[u16] {
        if !self.by_label.contains_key(label) {
            if self.by_label.len() >= LABELS_MAX {
                self.by_label.clear();
            }
            let matching = self.label_rules.iter().copied().filter(|at| {
                let rule = self.rules.rules.get(usize::from(*at));
                rule.is_some_and(|rule| judges(rule, label))
            });
            let matching = matching.collect();
            self.by_label.insert(label.into(), matching);
        }
        self.by_label.get(label).map_or(&[], |matching| matching)
    }
}

/// Whether a rule judges this label; the empty one stands for the host itself.
pub(super) fn judges(rule: &Rule, label: &str) -> bool {
    match &rule.kind {
        RuleKind::Label(of) => !label.is_empty() && of.labels.matches(label),
        _ => label.is_empty(),
    }
}
