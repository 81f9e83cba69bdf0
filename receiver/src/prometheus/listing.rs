//! Names: series, labels, and values of labels, as Prometheus lists them.

use std::collections::{BTreeSet, HashSet};

use super::find::{self, SERIES_MAX, TooMany};
use super::naming::HOST;
use super::read::{Stat, labels_of};
use super::selector::{self, Selector, SelectorError};
use crate::authorize::{Permit, ReadSeries};
use crate::summarize::SummaryTable;

/// Means every series, and all there is of each.
const EVERYTHING: &str = r#"{stat=~".*"}"#;

/// Of which series names are listed: those with samples in a window.
#[derive(Debug)]
pub struct Listed<'a> {
    /// Whose hosts.
    pub permit: &'a Permit<ReadSeries>,
    /// The summaries.
    pub table: &'a SummaryTable,
    /// One of these means each.
    pub selectors: Vec<Selector>,
    /// The present time.
    pub now: u64,
}

/// What these texts select; all that there is if there are none.
pub fn selectors<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Selector>, SelectorError> {
    let mut all = texts
        .map(selector::matchers)
        .collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() {
        all.push(selector::matchers(EVERYTHING)?);
    }
    selector::selectors(all.iter().map(Vec::as_slice))
}

impl Listed<'_> {
    /// The labels of each series.
    pub fn series(&self) -> Result<BTreeSet<Vec<(String, String)>>, TooMany> {
        let mut all = BTreeSet::new();
        for selector in &self.selectors {
            let stats: Vec<_> = Stat::meant_by(selector).collect();
            self.each(selector, &mut |host, label| {
                for stat in &stats {
                    all.insert(labels_of(host, label, *stat));
                }
                fits(all.len())
            })?;
        }
        Ok(all)
    }

    /// The names of their labels.
    pub fn label_names(&self) -> Result<BTreeSet<String>, TooMany> {
        let mut all = BTreeSet::new();
        for selector in &self.selectors {
            let stats: Vec<_> = Stat::meant_by(selector).collect();
            let mut seen = HashSet::new();
            self.each(selector, &mut |host, label| {
                if !seen.contains(label) {
                    seen.insert(Box::<str>::from(label));
                    for stat in &stats {
                        let labels = labels_of(host, label, *stat);
                        all.extend(labels.into_iter().map(|(name, _)| name));
                    }
                }
                fits(all.len().max(seen.len()))
            })?;
        }
        Ok(all)
    }

    /// The values that a label has in them.
    pub fn values(&self, name: &str) -> Result<BTreeSet<String>, TooMany> {
        let mut all = BTreeSet::new();
        for selector in &self.selectors {
            let stats: Vec<_> = Stat::meant_by(selector).collect();
            let mut seen = HashSet::new();
            self.each(selector, &mut |host, label| {
                // Of each host, or of each label: there are many times as many series.
                let key = if name == HOST { host } else { label };
                if !seen.contains(key) {
                    seen.insert(Box::<str>::from(key));
                    for stat in &stats {
                        let labels = labels_of(host, label, *stat);
                        let value = labels.into_iter().find(|(of, _)| of == name);
                        all.extend(value.map(|(_, value)| value));
                    }
                }
                fits(seen.len())
            })?;
        }
        Ok(all)
    }

    fn each(
        &self,
        selector: &Selector,
        found: &mut dyn FnMut(&str, &str) -> Result<(), TooMany>,
    ) -> Result<(), TooMany> {
        match Stat::meant_by(selector).next() {
            Some(_) => find::each(self.permit, self.table, selector, self.now, found),
            None => Ok(()),
        }
    }
}

fn fits(count: usize) -> Result<(), TooMany> {
    match count > SERIES_MAX {
        true => Err(TooMany),
        false => Ok(()),
    }
}
