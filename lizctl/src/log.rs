//! `audit-log` and `verify-audit`: what the CA did, and whether its log still says all of it.

use clap::Args;
use lizmon_ca::audit::{AuditHead, AuditLine};
use serde_json::{Map, Value};

use crate::cli::{Context, Json};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct AuditLog {
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyAudit {
    /// A line that an earlier run printed: all up to it must still be the same
    #[arg(long, env = "LIZMON_HEAD", value_name = "NUMBER:HASH")]
    head: Option<AuditHead>,
    #[command(flatten)]
    json: Json,
}

/// `lizctl audit-log`.
pub(crate) fn audit_log(args: &AuditLog, context: &Context) -> anyhow::Result<()> {
    let authority = context.look((context.clock)())?;
    let lines = authority.audit_log()?;
    if args.json.is_on() {
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

/// `lizctl verify-audit`.
pub(crate) fn verify_audit(args: &VerifyAudit, context: &Context) -> anyhow::Result<()> {
    let authority = context.look((context.clock)())?;
    let head = authority.verify_audit(args.head.as_ref())?;
    if args.json.is_on() {
        let head = head.map(|head| head.to_string());
        return output::json(&serde_json::json!({ "good": true, "head": head }));
    }
    match head {
        Some(head) => {
            output::line(format_args!(
                "{} lines, all as they were written",
                head.number
            ))?;
            output::line(format_args!("head {head}"))?;
            output::note(
                "keep the head elsewhere, and give it to --head later: so nobody can write the log anew",
            );
            Ok(())
        }
        None => output::line("no lines yet"),
    }
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

/// `name=web1 serial=5f0e…`, without quotes where none are needed.
fn as_text(details: &Map<String, Value>) -> String {
    let pairs = details.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}
