//! What was found: one line for each check, with a remedy where something is wrong.

use std::fmt::Display;

use serde::Serialize;

use crate::output;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// All is well.
    Ok,
    /// It could not be checked, for a reason that is no fault.
    Skipped,
    /// It works, and will not for long, or not as well as it should.
    Warning,
    /// It does not work.
    Failed,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
        }
    }
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    Files,
    Certificate,
    Crl,
    Clock,
    Authority,
    Receiver,
    Token,
    Read,
    Write,
    Spool,
    Data,
    Store,
    Service,
}

impl Subject {
    fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Certificate => "certificate",
            Self::Crl => "crl",
            Self::Clock => "clock",
            Self::Authority => "authority",
            Self::Receiver => "receiver",
            Self::Token => "token",
            Self::Read => "read",
            Self::Write => "write",
            Self::Spool => "spool",
            Self::Data => "data",
            Self::Store => "store",
            Self::Service => "service",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CheckResult {
    check: Subject,
    status: Status,
    /// What is wrong, for programs. None where nothing is.
    code: Option<&'static str>,
    what: String,
    remedy: Option<String>,
}

/// All results, in the order of the checks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    checked_at: u64,
    /// Whose certificate it is.
    identity: Option<String>,
    results: Vec<CheckResult>,
}

impl Report {
    pub(super) fn new(checked_at: u64) -> Self {
        Self {
            checked_at,
            identity: None,
            results: Vec::new(),
        }
    }

    pub(super) fn identify(&mut self, identity: impl Display) {
        self.identity = Some(identity.to_string());
    }

    pub(super) fn ok(&mut self, check: Subject, what: impl Display) {
        self.add(check, Status::Ok, None, what, None);
    }

    pub(super) fn skipped(&mut self, check: Subject, what: impl Display) {
        self.add(check, Status::Skipped, None, what, None);
    }

    pub(super) fn warning(
        &mut self,
        check: Subject,
        code: &'static str,
        what: impl Display,
        remedy: impl Display,
    ) {
        let remedy = Some(remedy.to_string());
        self.add(check, Status::Warning, Some(code), what, remedy);
    }

    pub(super) fn failed(
        &mut self,
        check: Subject,
        code: &'static str,
        what: impl Display,
        remedy: impl Display,
    ) {
        let remedy = Some(remedy.to_string());
        self.add(check, Status::Failed, Some(code), what, remedy);
    }

    fn add(
        &mut self,
        check: Subject,
        status: Status,
        code: Option<&'static str>,
        what: impl Display,
        remedy: Option<String>,
    ) {
        self.results.push(CheckResult {
            check,
            status,
            code,
            what: what.to_string(),
            remedy,
        });
    }

    /// How many things are wrong so far.
    pub(super) fn findings(&self) -> usize {
        self.count(Status::Warning) + self.count(Status::Failed)
    }

    #[cfg(test)]
    pub(super) fn codes(&self) -> Vec<&'static str> {
        self.results
            .iter()
            .filter_map(|result| result.code)
            .collect()
    }

    fn count(&self, status: Status) -> usize {
        let of = |result: &&CheckResult| result.status == status;
        self.results.iter().filter(of).count()
    }

    /// Prints every result, the remedy below what it is for.
    pub(super) fn show(&self) -> anyhow::Result<()> {
        if let Some(identity) = &self.identity {
            output::line(format_args!("as {identity}"))?;
        }
        for result in &self.results {
            let (status, check) = (result.status.word(), result.check.word());
            output::line(format_args!("{status:<7}  {check:<11}  {}", result.what))?;
            if let Some(remedy) = &result.remedy {
                output::line(format_args!("{:22}-> {remedy}", ""))?;
            }
        }
        Ok(())
    }

    pub(super) fn show_json(&self) -> anyhow::Result<()> {
        output::json(self)
    }

    /// Fails if something is wrong.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let (failed, warnings) = (self.count(Status::Failed), self.count(Status::Warning));
        match failed + warnings {
            0 => Ok(()),
            _ => anyhow::bail!(
                "{failed} of {} checks failed, {warnings} warn: each says what helps",
                self.results.len()
            ),
        }
    }
}
