//! Rules: what is an alarm, and who is told. [`RuleSet`] cannot hold an invalid rule.

mod channels;
mod duration;
mod error;
mod file;
mod rule;
mod set;

pub use self::channels::{
    AlertmanagerConfig, ChannelConfig, ChannelKind, CommandConfig, MailConfig, MailTls,
    WebhookConfig,
};
pub use self::error::RulesError;
pub use self::file::{BUILT_IN, FILE_BYTES_MAX, NAME_BYTES_MAX, RULES_MAX};
pub use self::rule::{
    AlarmSeverity, Flapping, LabelRule, Rule, RuleKind, RuleTier, Statistic, Threshold, Wildcards,
};
pub use self::set::RuleSet;

#[cfg(test)]
mod tests;
