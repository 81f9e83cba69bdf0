//! `init-ca`: creates a CA.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::{Authority, InitOptions};
use lizmon_ca::pki::KeyAlg;
use lizmon_protocol::name::{DEFAULT_TRUST_DOMAIN, TrustDomain};

use crate::context::Context;
use crate::flags::days::days;
use crate::output;

/// Create a CA: root, issuing CA, CRLs, ledger
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl init-ca --trust-domain metrics.example")]
pub(crate) struct InitCaArgs {
    /// Trust domain of all identities: spiffe://DOMAIN/ROLE/NAME
    #[arg(long, env = "LIZMON_TRUST_DOMAIN", value_name = "DOMAIN", default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    /// Ask for a passphrase and encrypt the CA's keys with it; --passphrase-file implies it
    #[arg(long, env = "LIZMON_ENCRYPT", value_parser = FalseyValueParser::new())]
    encrypt: bool,
    /// Write the root key into this folder (removable storage) instead of --certs
    #[arg(long, env = "LIZMON_OFFLINE_ROOT", value_name = "DIR")]
    offline_root: Option<PathBuf>,
    /// Lifetime of the root
    #[arg(long, env = "LIZMON_ROOT_DAYS", value_name = "DAYS", default_value = "3650", value_parser = days())]
    root_days: u32,
    /// Lifetime of the issuing CA; it never outlives the root
    #[arg(long, env = "LIZMON_ISSUING_DAYS", value_name = "DAYS", default_value = "365", value_parser = days())]
    issuing_days: u32,
    /// Lifetime of CRLs [default: 30]; choose a longer one if neither liz-ca nor cron signs them
    /// regularly
    #[arg(long, env = "LIZMON_CRL_DAYS", value_name = "DAYS", value_parser = days())]
    crl_days: Option<u32>,
    /// Algorithm of the CA's keys: p256 or ed25519
    #[arg(
        long,
        env = "LIZMON_KEY_ALG",
        value_name = "ALG",
        default_value = "p256"
    )]
    key_alg: KeyAlg,
    /// Do nothing if --certs has a CA already
    #[arg(long, env = "LIZMON_IF_MISSING", value_parser = FalseyValueParser::new())]
    if_missing: bool,
}

/// `lizctl init-ca`.
pub(crate) fn run(args: &InitCaArgs, context: &Context) -> anyhow::Result<()> {
    if args.if_missing && Authority::exists(&context.certs) {
        let certs = context.certs.display();
        output::note(format_args!("{certs} has a CA already"));
        return Ok(());
    }
    let options = InitOptions {
        trust_domain: args.trust_domain.clone(),
        root_days: args.root_days,
        issuing_days: args.issuing_days,
        crl_days: args.crl_days,
        key_alg: args.key_alg,
        passphrase: context.keys.new_passphrase(args.encrypt)?,
        offline_root: args.offline_root.clone(),
    };
    let authority = Authority::init(&context.certs, &options, (context.clock)())?;
    let files = authority.files();
    let root_key = options.root_key(files);
    let until = |validity: lizmon_ca::pki::Validity| output::date(validity.not_after);
    output::line(format_args!(
        "root        {}, key {}, until {}",
        files.root_certificate.display(),
        root_key.display(),
        until(authority.root_validity()),
    ))?;
    output::line(format_args!(
        "issuing CA  {}, key {}, until {}",
        files.issuing_certificate.display(),
        files.issuing_key.display(),
        until(authority.issuing_validity()),
    ))?;
    output::line(format_args!(
        "fingerprint {} (SHA-256 of the root)",
        authority.root_fingerprint()
    ))?;
    if let Some(end) = authority.crls_end()? {
        output::line(format_args!(
            "CRLs        {}, until {}: liz-ca signs them again, and any lizctl command that opens the CA",
            files.crl.display(),
            output::date(end),
        ))?;
    }
    output::note(format_args!(
        "next: lizctl{} issue-receiver NAME --san DNS-OR-IP; {} may be taken offline",
        context.certs_flag(),
        root_key.display(),
    ));
    Ok(())
}
