//! `verify-audit`: verifies the CA's audit log.

use clap::Args;
use lizmon_ca::ledger::audit::AuditHead;

use crate::context::Context;
use crate::flags::output::OutputFlags;
use crate::output;

/// Check that no line of the CA's audit log was changed, removed or cut off
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl verify-audit --head 42:9f86d0…, as an earlier run printed it"
)]
pub(crate) struct VerifyAuditArgs {
    /// A head that an earlier run printed: the log up to it must be unchanged
    #[arg(long, env = "LIZMON_HEAD", value_name = "NUMBER:HASH")]
    head: Option<AuditHead>,
    #[command(flatten)]
    output: OutputFlags,
}

/// `lizctl verify-audit`.
pub(crate) fn run(args: &VerifyAuditArgs, context: &Context) -> anyhow::Result<()> {
    let authority = context.authority_to_read((context.clock)())?;
    let head = authority.verify_audit(args.head.as_ref())?;
    if args.output.is_json() {
        let head = head.map(|head| head.to_string());
        return output::json(&serde_json::json!({ "good": true, "head": head }));
    }
    match head {
        Some(head) => {
            output::line(format_args!("{} lines, none changed", head.number))?;
            output::line(format_args!("head {head}"))?;
            output::note(
                "keep the head elsewhere and give it to --head later, to detect a log that was rewritten",
            );
            Ok(())
        }
        None => output::line("no lines yet"),
    }
}
