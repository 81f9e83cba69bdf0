//! `audit-log`: shows the CA's audit log.

use clap::Args;
use lizmon_ca::ledger::audit::AuditLine;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::flags::output::OutputFlags;
use crate::output;

/// Show the CA's audit log: who did what, and when
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl audit-log --json")]
pub(crate) struct AuditLogArgs {
    #[command(flatten)]
    output: OutputFlags,
}

/// `lizctl audit-log`.
pub(crate) fn run(args: &AuditLogArgs, context: &Context) -> anyhow::Result<()> {
    let authority = context.authority_to_read((context.clock)())?;
    let lines = authority.audit_log()?;
    if args.output.is_json() {
        let lines = lines.iter().map(as_json).collect::<Result<Vec<_>, _>>()?;
        return output::json(&serde_json::json!({ "lines": lines }));
    }
    let rows = lines.iter().map(|line| {
        Ok([
            line.number.to_string(),
            output::date(line.time),
            line.who.clone(),
            line.what.clone(),
            as_text(&details(line)?),
        ])
    });
    output::table(
        ["LINE", "TIME", "WHO", "WHAT", "DETAILS"],
        rows.collect::<anyhow::Result<_>>()?,
    )
}

fn details(line: &AuditLine) -> anyhow::Result<Map<String, Value>> {
    Ok(serde_json::from_str(&line.details)?)
}

fn as_json(line: &AuditLine) -> anyhow::Result<Value> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    Ok(serde_json::json!({
        "number": line.number,
        "time": line.time,
        "who": line.who,
        "what": line.what,
        "details": details(line)?,
        "previous": hex(&line.previous),
        "hash": hex(&line.hash),
    }))
}

/// `name=web1 serial=5f0e…`; strings are not quoted.
fn as_text(details: &Map<String, Value>) -> String {
    let pairs = details.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}
