//! `verify`: checks whether a receiver accepts a certificate.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use lizmon_ca::files::CaFiles;
use lizmon_ca::pki::verify::{self, Trusted};

use crate::context::Context;
use crate::flags::output::OutputFlags;
use crate::{input, output};

/// Verify a certificate file as a receiver does, with root.crt and crl.pem of --certs
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl verify certs/nodes/web1.crt")]
pub(crate) struct VerifyArgs {
    /// The certificate file (PEM or DER)
    file: PathBuf,
    #[command(flatten)]
    output: OutputFlags,
}

/// `lizctl verify`.
pub(crate) fn run(args: &VerifyArgs, context: &Context) -> anyhow::Result<()> {
    let files = CaFiles::new(&context.certs);
    let roots_pem = input::read(&files.root_certificate)?;
    let crls_pem = input::read(&files.crl)?;
    let trusted = Trusted {
        roots_pem: &roots_pem,
        crls_pem: &crls_pem,
    };
    let file = args.file.display().to_string();
    let now = (context.clock)();
    let verdict = verify::verify(&input::read(&args.file)?, trusted, now)
        .with_context(|| format!("a receiver refuses {file}"))?;
    if verdict.crl_next_update < now {
        output::note(format_args!(
            "{} expired at {}: fetch or sign a new one",
            files.crl.display(),
            output::date(verdict.crl_next_update),
        ));
    }
    if args.output.is_json() {
        return output::json(&serde_json::json!({
            "identity": verdict.spiffe_id,
            "not-after": verdict.not_after,
            "crl-next-update": verdict.crl_next_update,
        }));
    }
    output::line(format_args!(
        "{file}: a receiver accepts it as {} until {}",
        verdict.spiffe_id,
        output::date(verdict.not_after),
    ))
}
