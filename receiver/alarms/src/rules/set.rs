//! All rules and channels in force.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::channels::ChannelConfig;
use super::rule::{Flapping, Rule};

/// All rules and channels in force.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSet {
    /// How often each host is judged: seconds.
    pub every_secs: u64,
    /// When an alarm comes and goes too often to be told each time.
    pub flapping: Flapping,
    /// The rules that are switched on, by name.
    pub rules: Vec<Rule>,
    /// The channels, by name.
    pub channels: BTreeMap<String, ChannelConfig>,
    /// Where it was read from.
    pub path: Option<PathBuf>,
}

impl RuleSet {
    /// The rule of this name.
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name == name)
    }

    /// The names of the channels that an alarm of this rule is told by.
    pub fn channels_of(&self, rule: &Rule, is_resolved: bool) -> Vec<String> {
        let is_meant = |name: &String| {
            let mut chosen = rule.channels.iter().flatten();
            rule.channels.is_none() || chosen.any(|chosen| chosen == name)
        };
        let channels = self.channels.iter();
        channels
            .filter(|(name, channel)| is_meant(name) && (!is_resolved || channel.send_resolved))
            .map(|(name, _)| name.clone())
            .collect()
    }
}
