//! What sites choose of what there is to measure.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use wildmatch::WildMatch;

/// What the collectors are asked to measure, and how.
#[derive(Debug, Clone, Default)]
pub struct CollectOptions {
    /// Which file systems, by mount point.
    pub filesystems: Patterns,
    /// Which network interfaces.
    pub interfaces: Patterns,
    /// Which disks, by the kernel's name.
    pub disks: Patterns,
    /// Which units and containers.
    pub cgroups: Patterns,
    /// The values of the site's own.
    pub own: OwnOptions,
    /// For each collector that is named, how many labels it may publish at once.
    pub labels_max: Vec<LabelsMax>,
}

/// A pattern that names are compared with: `*` is any text, `?` one character; `!` before it leaves
/// out what matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    pattern: WildMatch,
    leaves_out: bool,
}

/// The pattern has no characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern is a name in which * is any text and ? one character, and ! before it leaves out what matches"
)]
pub struct EmptyPattern;

impl FromStr for Pattern {
    type Err = EmptyPattern;

    fn from_str(text: &str) -> Result<Self, EmptyPattern> {
        let (text, leaves_out) = match text.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        match text.is_empty() {
            true => Err(EmptyPattern),
            false => Ok(Self {
                pattern: WildMatch::new(text),
                leaves_out,
            }),
        }
    }
}

/// Which of several things are measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// What these patterns choose.
    pub fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    /// Whether the thing of this name is measured. Where a pattern chooses, only what one matches
    /// is; otherwise what is measured by default. What a pattern with `!` matches never is.
    pub(super) fn takes(&self, name: &str, by_default: impl FnOnce() -> bool) -> bool {
        let matching = |leaves_out: bool| {
            let patterns = self.0.iter();
            let mut patterns = patterns.filter(move |pattern| pattern.leaves_out == leaves_out);
            patterns.any(|pattern| pattern.pattern.matches(name))
        };
        if matching(true) {
            return false;
        }
        match self.0.iter().all(|pattern| pattern.leaves_out) {
            true => by_default(),
            false => matching(false),
        }
    }
}

/// How many labels a collector may publish at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelsMax {
    /// The collector.
    pub collector: &'static str,
    /// Its labels.
    pub labels: usize,
}

/// Where values of the site's own come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnOptions {
    /// The folder of files.
    pub files: Option<PathBuf>,
    /// The age at which a file's values are not published any more.
    pub files_stale: Duration,
    /// The commands.
    pub commands: Vec<OwnCommand>,
    /// How often each is run.
    pub interval: Duration,
    /// How long each may take.
    pub time_limit: Duration,
}

impl OwnOptions {
    /// Whether there is anything to measure.
    pub fn is_empty(&self) -> bool {
        self.files.is_none() && self.commands.is_empty()
    }
}

impl Default for OwnOptions {
    fn default() -> Self {
        Self {
            files: None,
            files_stale: Duration::from_secs(600),
            commands: Vec::new(),
            interval: Duration::from_secs(60),
            time_limit: Duration::from_secs(10),
        }
    }
}

/// `NAME=PROGRAM ARGUMENT…`: a command that prints values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCommand {
    /// Names it in the log, and its value if it prints nothing but a number.
    pub name: String,
    /// The program and its arguments. No shell reads them.
    pub words: Vec<String>,
}

/// Text that is not a command with its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnCommandError {
    /// There is no name before it, or nothing behind.
    #[error("it is NAME=PROGRAM ARGUMENT…, such as jobs=/usr/bin/count-jobs --all")]
    Form,
    /// The quotes do not match.
    #[error("a quote in it has no end")]
    Quotes,
}

impl FromStr for OwnCommand {
    type Err = OwnCommandError;

    fn from_str(text: &str) -> Result<Self, OwnCommandError> {
        let (name, command) = text.split_once('=').ok_or(OwnCommandError::Form)?;
        let words = shell_words::split(command).map_err(|_| OwnCommandError::Quotes)?;
        let name = name.trim();
        match name.is_empty() || words.is_empty() {
            true => Err(OwnCommandError::Form),
            false => Ok(Self {
                name: name.to_owned(),
                words,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose() {
        let check = |patterns: &str, name: &str, by_default: bool, expected: bool| {
            let patterns = patterns
                .split_whitespace()
                .map(|text| text.parse().unwrap());
            let selection = Patterns::new(patterns.collect());
            let takes = selection.takes(name, || by_default);
            assert_eq!(takes, expected, "{selection:?} {name}");
        };
        check("", "eth0", true, true);
        check("", "veth1", false, false);
        check("!eth1", "eth0", true, true);
        check("!eth1", "eth1", true, false);
        check("!eth1", "veth1", false, false);
        check("eth*", "eth0", true, true);
        check("eth*", "wlan0", true, false);
        check("*", "veth1", false, true);
        check("* !veth*", "veth1", false, false);
        check("/ /srv/*", "/srv/a/b", true, true);
        check("/dev/?", "/dev/ab", true, false);
        for text in ["", "!"] {
            assert_eq!(text.parse::<Pattern>(), Err(EmptyPattern), "{text}");
        }
    }

    #[test]
    fn commands_have_names() {
        let check = |text: &str, expected: Result<(&str, &[&str]), OwnCommandError>| {
            let expected = expected.map(|(name, words)| OwnCommand {
                name: name.to_owned(),
                words: words.iter().map(|word| (*word).to_owned()).collect(),
            });
            assert_eq!(text.parse(), expected, "{text}");
        };
        check(
            "jobs=/bin/count --all",
            Ok(("jobs", &["/bin/count", "--all"])),
        );
        check(
            "a = sh -c 'echo \"$x=1\" | tr a,b c'",
            Ok(("a", &["sh", "-c", "echo \"$x=1\" | tr a,b c"])),
        );
        // Nothing of it is a shell's.
        check("a=echo $HOME;rm *", Ok(("a", &["echo", "$HOME;rm", "*"])));
        check("/bin/count", Err(OwnCommandError::Form));
        check("=x", Err(OwnCommandError::Form));
        check("a=", Err(OwnCommandError::Form));
        check("a=sh -c 'x", Err(OwnCommandError::Quotes));
    }
}
