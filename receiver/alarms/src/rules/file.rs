//! The file of rules, as it is written.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::channels::{self, RawChannel};
use super::duration::duration;
use super::error::{RulesError, Source};
use super::rule::{
    AlarmSeverity, Flapping, LabelRule, Rule, RuleKind, RuleTier, Statistic, Threshold, Wildcards,
};
use super::set::RuleSet;
use crate::template;

/// The rules that are there without a file, as a file.
pub const BUILT_IN: &str = include_str!("../built_in.toml");
/// Largest file of rules.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// How many rules and how many channels a file may have.
pub const RULES_MAX: usize = 1_000;
/// Largest name of a rule or channel.
pub const NAME_BYTES_MAX: usize = 64;

/// How often each host is judged, if the file does not say.
const EVERY_SECS: u64 = 15;
/// The longest that may be.
const EVERY_SECS_MAX: u64 = 300;
/// No `for` is longer.
const FOR_SECS_MAX: u64 = 30 * 86_400;
/// Flapping, if the file does not say.
const FLAPPING: Flapping = Flapping {
    firings: 3,
    within_secs: 3_600,
    quiet_secs: 1_800,
};
/// How many firings are remembered.
const FIRINGS_MAX: usize = 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawFile {
    evaluation_interval: Option<Spanned<String>>,
    flapping: RawFlapping,
    rules: BTreeMap<Spanned<String>, RawRule>,
    channels: BTreeMap<Spanned<String>, RawChannel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawFlapping {
    firings: Option<Spanned<usize>>,
    within: Option<Spanned<String>>,
    quiet: Option<Spanned<String>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawRule {
    enabled: Option<bool>,
    kind: Option<Spanned<Kind>>,
    hosts: Option<OneOrMany>,
    label: Option<OneOrMany>,
    interval: Option<Spanned<RuleTier>>,
    statistic: Option<Spanned<Statistic>>,
    above: Option<Spanned<f64>>,
    below: Option<Spanned<f64>>,
    clear_below: Option<Spanned<f64>>,
    clear_above: Option<Spanned<f64>>,
    within: Option<Spanned<String>>,
    r#for: Option<Spanned<String>>,
    keep_firing_for: Option<Spanned<String>>,
    severity: Option<AlarmSeverity>,
    channels: Option<Vec<Spanned<String>>>,
    summary: Option<Spanned<String>>,
    description: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Label,
    Silent,
    CertificateEnds,
    RecordsLost,
    ClockSkew,
    ReceiverBlind,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a pattern, or a list of patterns")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn patterns(&self) -> Wildcards {
        match self {
            Self::One(pattern) => Wildcards::new([pattern.as_str()]),
            Self::Many(patterns) => Wildcards::new(patterns.iter().map(String::as_str)),
        }
    }
}

impl RuleSet {
    /// The rules that are built in, without any channel.
    pub fn built_in() -> Result<Self, RulesError> {
        read(Path::new("built-in rules"), "")
    }

    /// Reads a file of rules, over those that are built in.
    pub fn open(path: &Path) -> Result<Self, RulesError> {
        let text = read_to_string(path)?;
        Self::parse(path, &text)
    }

    /// The rules of this text; paths in it are relative to the folder of `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RulesError> {
        let mut rules = read(path, text)?;
        rules.path = Some(path.to_owned());
        Ok(rules)
    }
}

fn read_to_string(path: &Path) -> Result<String, RulesError> {
    let unreadable = |source| RulesError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let kind = std::io::ErrorKind::FileTooLarge;
        return Err(unreadable(kind.into()));
    }
    Ok(text)
}

/// The built-in rules with those of the text over them.
fn read(path: &Path, text: &str) -> Result<RuleSet, RulesError> {
    let built_in = Source {
        path: Path::new("built-in rules"),
        text: BUILT_IN,
    };
    let source = Source { path, text };
    let mut built_in_rules = parse(built_in)?.rules;
    let file = parse(source)?;
    if file.rules.len() > RULES_MAX || file.channels.len() > RULES_MAX {
        let why = format!("more than {RULES_MAX} rules or channels");
        return Err(source.error(0..0, why));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut channels = BTreeMap::new();
    for (name, raw) in file.channels {
        check_name(source, &name)?;
        let config = channels::read(source, name.span(), folder, raw)?;
        channels.insert(name.into_inner(), config);
    }
    let mut rules = Vec::new();
    for (name, raw) in file.rules {
        check_name(source, &name)?;
        // Where a key of the built-in rule is kept, nothing in this file can be wrong with it.
        let raw = match built_in_rules.remove(name.get_ref().as_str()) {
            Some(below) => raw.over(below),
            None => raw,
        };
        rules.extend(rule(source, name, raw, &|name| {
            channels.contains_key(name)
        })?);
    }
    for (name, raw) in built_in_rules {
        rules.extend(rule(built_in, name, raw, &|_| true)?);
    }
    rules.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(RuleSet {
        every_secs: every(source, file.evaluation_interval)?,
        flapping: flapping(source, &file.flapping)?,
        rules,
        channels,
        path: None,
    })
}

fn parse(source: Source<'_>) -> Result<RawFile, RulesError> {
    toml::from_str(source.text)
        .map_err(|error| source.error(error.span().unwrap_or(0..0), error.message()))
}

fn check_name(source: Source<'_>, name: &Spanned<String>) -> Result<(), RulesError> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    let text = name.get_ref();
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(is_plain) {
        let why = format!("a name has 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -");
        return Err(source.error(name.span(), why));
    }
    Ok(())
}

impl RawRule {
    /// Each key of this, or else the one below.
    fn over(self, below: Self) -> Self {
        // A threshold is replaced as a whole.
        let threshold = [
            &self.above,
            &self.below,
            &self.clear_below,
            &self.clear_above,
        ];
        let below = match threshold.iter().any(|number| number.is_some()) {
            true => Self {
                above: None,
                below: None,
                clear_below: None,
                clear_above: None,
                ..below
            },
            false => below,
        };
        Self {
            enabled: self.enabled.or(below.enabled),
            kind: self.kind.or(below.kind),
            hosts: self.hosts.or(below.hosts),
            label: self.label.or(below.label),
            interval: self.interval.or(below.interval),
            statistic: self.statistic.or(below.statistic),
            above: self.above.or(below.above),
            below: self.below.or(below.below),
            clear_below: self.clear_below.or(below.clear_below),
            clear_above: self.clear_above.or(below.clear_above),
            within: self.within.or(below.within),
            r#for: self.r#for.or(below.r#for),
            keep_firing_for: self.keep_firing_for.or(below.keep_firing_for),
            severity: self.severity.or(below.severity),
            channels: self.channels.or(below.channels),
            summary: self.summary.or(below.summary),
            description: self.description.or(below.description),
        }
    }
}

/// None if it is switched off.
fn rule(
    source: Source<'_>,
    name: Spanned<String>,
    raw: RawRule,
    is_channel: &dyn Fn(&str) -> bool,
) -> Result<Option<Rule>, RulesError> {
    let at = name.span();
    let kind = kind(source, &at, &raw)?;
    for channel in raw.channels.iter().flatten() {
        if !is_channel(channel.get_ref()) {
            let why = format!("there is no channel `{}`", channel.get_ref());
            return Err(source.error(channel.span(), why));
        }
    }
    for template in [&raw.summary, &raw.description].into_iter().flatten() {
        template::check(template.get_ref())
            .map_err(|error| source.error(template.span(), error.to_string()))?;
    }
    let secs = |value: &Option<Spanned<String>>| {
        duration(source, value.as_ref(), 0..=FOR_SECS_MAX).map(|secs| secs.unwrap_or(0))
    };
    let text = |value: Option<Spanned<String>>| value.map(Spanned::into_inner);
    let channels = raw.channels.map(|channels| {
        let names = channels.into_iter().map(Spanned::into_inner);
        names.collect()
    });
    Ok(raw.enabled.unwrap_or(true).then_some(Rule {
        name: name.into_inner(),
        kind,
        hosts: raw
            .hosts
            .as_ref()
            .map_or_else(|| Wildcards::new(["*"]), OneOrMany::patterns),
        for_secs: secs(&raw.r#for)?,
        keep_firing_secs: secs(&raw.keep_firing_for)?,
        severity: raw.severity.unwrap_or(AlarmSeverity::Warning),
        channels,
        summary: text(raw.summary).unwrap_or_else(|| template::DEFAULT_SUMMARY.to_owned()),
        description: text(raw.description).unwrap_or_default(),
    }))
}

fn kind(source: Source<'_>, at: &Range<usize>, raw: &RawRule) -> Result<RuleKind, RulesError> {
    let kind = raw
        .kind
        .as_ref()
        .map_or(Kind::Label, |kind| *kind.get_ref());
    let unused = |keys: &[(&str, Option<Range<usize>>)]| match keys
        .iter()
        .find_map(|(key, span)| Some((key, span.clone()?)))
    {
        None => Ok(()),
        Some((key, span)) => Err(source.error(span, format!("a rule of this kind has no `{key}`"))),
    };
    let number = |value: &Option<Spanned<f64>>| value.as_ref().map(Spanned::span);
    let text = |value: &Option<Spanned<String>>| value.as_ref().map(Spanned::span);
    let (above, below) = (("above", number(&raw.above)), ("below", number(&raw.below)));
    let clear_below = ("clear-below", number(&raw.clear_below));
    let clear_above = ("clear-above", number(&raw.clear_above));
    let within = ("within", text(&raw.within));
    if kind != Kind::Label {
        let interval = raw.interval.as_ref().map(Spanned::span);
        let statistic = raw.statistic.as_ref().map(Spanned::span);
        unused(&[
            ("interval", interval),
            ("statistic", statistic),
            below,
            clear_above,
        ])?;
        if raw.label.is_some() {
            return Err(source.error(at.clone(), "a rule of this kind has no `label`"));
        }
    }
    let missing = |key: &str| source.error(at.clone(), format!("`{key}` is missing"));
    match kind {
        Kind::Silent | Kind::ReceiverBlind => {
            unused(&[above, clear_below, within])?;
            Ok(match kind {
                Kind::Silent => RuleKind::Silent,
                _ => RuleKind::ReceiverBlind,
            })
        }
        Kind::CertificateEnds => {
            unused(&[above, clear_below])?;
            let within = duration(source, raw.within.as_ref(), 1..=FOR_SECS_MAX * 12)?;
            let within_secs = within.ok_or_else(|| missing("within"))?;
            Ok(RuleKind::CertificateEnds { within_secs })
        }
        Kind::RecordsLost => {
            unused(&[clear_below, within])?;
            let above = finite(source, raw.above.as_ref())?.unwrap_or(0.0);
            Ok(RuleKind::RecordsLost {
                above: above.clamp(0.0, 1e15) as u64,
            })
        }
        Kind::ClockSkew => {
            unused(&[within])?;
            let above = finite(source, raw.above.as_ref())?.ok_or_else(|| missing("above"))?;
            let clear_below = finite(source, raw.clear_below.as_ref())?.unwrap_or(above);
            if let Some(clear) = raw.clear_below.as_ref().filter(|_| clear_below > above) {
                return Err(source.error(clear.span(), "this is more than `above`"));
            }
            Ok(RuleKind::ClockSkew { above, clear_below })
        }
        Kind::Label => {
            unused(&[within])?;
            let labels = raw.label.as_ref().ok_or_else(|| missing("label"))?;
            Ok(RuleKind::Label(LabelRule {
                labels: labels.patterns(),
                tier: raw
                    .interval
                    .as_ref()
                    .map_or(RuleTier::Minute, |tier| *tier.get_ref()),
                statistic: raw
                    .statistic
                    .as_ref()
                    .map_or(Statistic::Avg, |statistic| *statistic.get_ref()),
                threshold: threshold(source, at, raw)?,
            }))
        }
    }
}

fn threshold(
    source: Source<'_>,
    at: &Range<usize>,
    raw: &RawRule,
) -> Result<Threshold, RulesError> {
    let of = |value: &Option<Spanned<f64>>| finite(source, value.as_ref());
    let threshold = Threshold {
        above: of(&raw.above)?,
        below: of(&raw.below)?,
        clear_below: of(&raw.clear_below)?,
        clear_above: of(&raw.clear_above)?,
    };
    if threshold.above.is_none() && threshold.below.is_none() {
        return Err(source.error(at.clone(), "`above` or `below` is missing"));
    }
    // What is neither an alarm nor the end of one must not be empty the wrong way round: such an
    // alarm would never end.
    let clashes = [
        (
            &raw.clear_below,
            threshold.clear_below,
            threshold.above,
            "above",
            true,
        ),
        (
            &raw.clear_above,
            threshold.clear_above,
            threshold.below,
            "below",
            false,
        ),
    ];
    for (raw, clear, limit, name, is_upper) in clashes {
        let (Some(raw), Some(clear)) = (raw, clear) else {
            continue;
        };
        match limit {
            None => return Err(source.error(raw.span(), format!("there is no `{name}`"))),
            Some(limit) if is_upper && clear > limit => {
                return Err(source.error(raw.span(), "this is more than `above`"));
            }
            Some(limit) if !is_upper && clear < limit => {
                return Err(source.error(raw.span(), "this is less than `below`"));
            }
            Some(_) => (),
        }
    }
    let low = threshold.clear_above.or(threshold.below);
    let high = threshold.clear_below.or(threshold.above);
    if low.zip(high).is_some_and(|(low, high)| low >= high) {
        let why = "no value would end such an alarm: compare `above`, `below` and where they clear";
        return Err(source.error(at.clone(), why));
    }
    Ok(threshold)
}

fn finite(source: Source<'_>, value: Option<&Spanned<f64>>) -> Result<Option<f64>, RulesError> {
    match value {
        Some(value) if !value.get_ref().is_finite() => {
            Err(source.error(value.span(), "this is no finite number"))
        }
        value => Ok(value.map(|value| *value.get_ref())),
    }
}

fn every(source: Source<'_>, value: Option<Spanned<String>>) -> Result<u64, RulesError> {
    let secs = duration(source, value.as_ref(), 1..=EVERY_SECS_MAX)?;
    Ok(secs.unwrap_or(EVERY_SECS))
}

fn flapping(source: Source<'_>, raw: &RawFlapping) -> Result<Flapping, RulesError> {
    let secs = |value: &Option<Spanned<String>>, default| {
        let secs = duration(source, value.as_ref(), 1..=86_400)?;
        Ok::<_, RulesError>(secs.unwrap_or(default))
    };
    if let Some(firings) = &raw.firings
        && !(2..=FIRINGS_MAX).contains(firings.get_ref())
    {
        let why = format!("this is from 2 to {FIRINGS_MAX}");
        return Err(source.error(firings.span(), why));
    }
    let firings = raw.firings.as_ref().map(|firings| *firings.get_ref());
    Ok(Flapping {
        firings: firings.unwrap_or(FLAPPING.firings),
        within_secs: secs(&raw.within, FLAPPING.within_secs)?,
        quiet_secs: secs(&raw.quiet, FLAPPING.quiet_secs)?,
    })
}
