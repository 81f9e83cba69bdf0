//! The limits, and the compiler they were measured with.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Deserialize;

const FILE: &str = "tests/instructions/limits.toml";
/// What the same build differs by from run to run, and an incremental one from one that is not:
/// percent.
const TOLERANCE_PERCENT: u64 = 8;

#[derive(Deserialize)]
pub(crate) struct Limits {
    /// As `rustc --version` says it.
    rustc: String,
    instructions: BTreeMap<String, u64>,
}

impl Limits {
    pub(crate) fn read() -> Self {
        toml::from_str(include_str!("limits.toml")).expect(FILE)
    }

    /// Whether so many instructions are within the limit of this kind of request.
    pub(crate) fn check(&self, kind: &str, instructions: u64) -> Result<(), String> {
        let limit = self.instructions.get(kind).copied();
        let limit = limit.ok_or_else(|| format!("{FILE} has no limit for {kind}"))?;
        let max = limit + limit * TOLERANCE_PERCENT / 100;
        if instructions <= max {
            return Ok(());
        }
        let compiler = compiler();
        let other = match compiler == self.rustc {
            true => String::new(),
            false => format!(
                " The limits are those of {}, this is {compiler}.",
                self.rustc
            ),
        };
        Err(format!(
            "{kind}: {instructions} instructions, {limit} and {TOLERANCE_PERCENT} % more are the limit.{other} \
             If they are worth it, raise the limit in {FILE}, and say in the commit what for."
        ))
    }
}

fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.expect("rustc runs").stdout;
    String::from_utf8_lossy(&said).trim().to_owned()
}
