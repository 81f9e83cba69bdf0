//! `rotate`: replaces the issuing CA or the root, step by step.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::authority::{Authority, CaKind, PendingHolder, RotateOptions, Rotation, Stage};
use lizmon_ca::ledger::{Entry, Generation};
use lizmon_ca::pki::{KeyAlg, Profile};
use lizmon_protocol::name::Role;

use crate::context::Context;
use crate::flags::connection::ReceiversFlags;
use crate::flags::days::days;
use crate::flags::output::OutputFlags;
use crate::{crl_push, output};

/// How many pending holders are named after a step.
const NAMES_SHOWN: usize = 10;
/// Maximum wait for programs to reload new certificates.
const RELOAD_WAIT_SECS_MAX: u64 = 30;

/// Replace the issuing CA or the root: publish a new one, use it, retire the old one
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl rotate issuing --status\n  lizctl rotate issuing --next\n  lizctl rotate root --next --offline-root /media/stick\n  \
                  lizctl rotate root --back"
)]
#[group(id = "step", args = ["status", "next", "back"], required = true, multiple = false)]
pub(crate) struct RotateArgs {
    /// Which CA: issuing, or root (with an issuing CA of its own)
    #[arg(value_name = "CA")]
    what: CaKind,
    /// Show the state of the rotation and what the next step would do
    #[arg(long, env = "LIZMON_STATUS", value_parser = FalseyValueParser::new())]
    status: bool,
    /// Take the next step: publish the new CA, use it, retire the old one
    #[arg(long, env = "LIZMON_NEXT", value_parser = FalseyValueParser::new())]
    next: bool,
    /// Undo the last step
    #[arg(long, env = "LIZMON_BACK", value_parser = FalseyValueParser::new())]
    back: bool,
    /// Continue without waiting, even if holders have not renewed yet
    #[arg(long, env = "LIZMON_FORCE", value_parser = FalseyValueParser::new())]
    force: bool,
    /// Write the key of a new root into this folder (removable storage) instead of --certs
    #[arg(long, env = "LIZMON_OFFLINE_ROOT", value_name = "DIR")]
    offline_root: Option<PathBuf>,
    /// Lifetime of a new root
    #[arg(long, env = "LIZMON_ROOT_DAYS", value_name = "DAYS", default_value = "3650", value_parser = days())]
    root_days: u32,
    /// Lifetime of a new issuing CA; it never outlives its root
    #[arg(long, env = "LIZMON_ISSUING_DAYS", value_name = "DAYS", default_value = "365", value_parser = days())]
    issuing_days: u32,
    /// Algorithm of the new keys: p256 or ed25519
    #[arg(
        long,
        env = "LIZMON_KEY_ALG",
        value_name = "ALG",
        default_value = "p256"
    )]
    key_alg: KeyAlg,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    receivers: ReceiversFlags,
}

/// `lizctl rotate`.
pub(crate) fn run(args: &RotateArgs, context: &Context) -> anyhow::Result<()> {
    let begin = (context.stopwatch)();
    let now = (context.clock)();
    if args.status {
        let authority = context.authority_to_read(now)?;
        return show(args, &authority, &authority.rotation(now)?, (context, now));
    }
    let receivers = args.receivers.0.clients(context)?;
    let mut authority = context.authority(now)?;
    let options = RotateOptions {
        force: args.force,
        root_days: args.root_days,
        issuing_days: args.issuing_days,
        key_alg: args.key_alg,
        offline_root: args.offline_root.clone(),
    };
    let rotation = if args.next {
        let now = wait_for_reload(args, &authority, context)?;
        authority.rotate_next(args.what, &options, now)?
    } else {
        authority.rotate_back(args.what, &options, now)?
    };
    show(args, &authority, &rotation, (context, now))?;
    crl_push::push(&authority, &receivers, context, begin)
        .context("the step is done, but not every receiver has the CRLs")
}

/// Waits until programs whose certificate was just replaced have reloaded it, or else they would be
/// refused with the old one. Returns the time after the wait.
#[expect(
    clippy::disallowed_methods,
    reason = "a person waits for receivers to reload"
)]
fn wait_for_reload(
    args: &RotateArgs,
    authority: &Authority,
    context: &Context,
) -> anyhow::Result<u64> {
    let now = (context.clock)();
    let retire_from = authority.rotation(now)?.retire_from;
    let Some(wait) = retire_from.and_then(|from| from.checked_sub(now)) else {
        return Ok(now);
    };
    if args.force || wait == 0 {
        return Ok(now);
    }
    output::note(format_args!(
        "waiting for {wait} s: a certificate was issued a moment ago, and its holder may still use the old one"
    ));
    // If the clock was set back, wait no longer than programs take to reload files.
    std::thread::sleep(Duration::from_secs(wait.min(RELOAD_WAIT_SECS_MAX)));
    Ok((context.clock)())
}

fn show(
    args: &RotateArgs,
    authority: &Authority,
    rotation: &Rotation,
    (context, now): (&Context, u64),
) -> anyhow::Result<()> {
    let entries = authority.entries()?;
    let advice = advice(args.what, rotation, authority);
    if args.output.is_json() {
        return output::json(&as_json(rotation, &entries, (context, now), &advice));
    }
    match (rotation.stage, rotation.rotated) {
        (Stage::Steady, _) | (_, None) => output::line("no rotation is under way")?,
        (stage, Some(rotated)) => output::line(format_args!(
            "the new {} is {}",
            title(rotated),
            stage.as_str()
        ))?,
    }
    let rows = rotation.generations.iter().map(|ca| {
        [
            ca.entry.profile.to_string(),
            ca.phase.as_str().to_owned(),
            output::date(ca.since),
            output::date(ca.entry.not_after),
            leaves(ca, &entries, now).to_string(),
            ca.entry.serial.clone(),
        ]
    });
    output::table(
        ["CA", "PHASE", "SINCE", "UNTIL", "LEAVES", "SERIAL"],
        rows.collect(),
    )?;
    // `--status` names all of them.
    let shown = match args.status {
        true => usize::MAX,
        false => NAMES_SHOWN,
    };
    for waiting in rotation.waiting.iter().take(shown) {
        output::line(format_args!(
            "waits: {waiting}, until {}: {}",
            output::date(waiting.not_after),
            advice_for(waiting, context)
        ))?;
    }
    if rotation.waiting.len() > shown {
        output::line(format_args!(
            "waits: {} more: lizctl rotate {} --status names them",
            rotation.waiting.len() - shown,
            args.what
        ))?;
    }
    output::note(advice);
    Ok(())
}

/// How to renew the certificate of a pending holder now.
fn advice_for(waiting: &PendingHolder, context: &Context) -> String {
    let name = &waiting.name;
    let here = command(waiting, context);
    match waiting.renews_by {
        _ if waiting.role == Role::Ca => {
            "liz-ca renews its own certificate while it runs".to_owned()
        }
        Some(by) => format!(
            "renews automatically by {}; to renew now: on {name}, `lizctl renew --ca-url https://CA-HOST:8444 --cert {name}.crt \
             --key {name}.key --ca root.crt`, or here `{here}` and copy the files to it",
            output::date(by)
        ),
        None => format!("here `{here}`, and copy the files to it"),
    }
}

/// The command that issues the next certificate of a holder, with the same SANs.
fn command(waiting: &PendingHolder, context: &Context) -> String {
    let mut words = vec![
        format!("lizctl{}", context.certs_flag()),
        format!("issue-{}", waiting.role),
        waiting.name.clone(),
    ];
    words.extend(waiting.sans.iter().map(|san| format!("--san {san}")));
    words.join(" ")
}

fn as_json(
    rotation: &Rotation,
    entries: &[Entry],
    (context, now): (&Context, u64),
    advice: &str,
) -> serde_json::Value {
    let generations = rotation.generations.iter().map(|ca| {
        serde_json::json!({
            "ca": ca.entry.profile.as_str(),
            "name": ca.entry.name,
            "serial": ca.entry.serial,
            "phase": ca.phase.as_str(),
            "since": ca.since,
            "not-after": ca.entry.not_after,
            "leaves": leaves(ca, entries, now),
        })
    });
    let waiting = rotation.waiting.iter().map(|waiting| {
        serde_json::json!({
            "role": waiting.role.as_str(),
            "name": waiting.name,
            "not-after": waiting.not_after,
            "renews-by": waiting.renews_by,
            "command": (waiting.role != Role::Ca).then(|| command(waiting, context)),
        })
    });
    serde_json::json!({
        "retire-from": rotation.retire_from,
        "stage": rotation.stage.as_str(),
        "rotated": rotation.rotated.map(CaKind::as_str),
        "generations": generations.collect::<Vec<_>>(),
        "waiting": waiting.collect::<Vec<_>>(),
        "advice": advice,
    })
}

/// How many live certificates this CA has signed.
fn leaves(ca: &Generation, entries: &[Entry], now: u64) -> usize {
    let signed =
        |entry: &&Entry| entry.issuer == ca.entry.serial && entry.serial != ca.entry.serial;
    let leaf = |entry: &&Entry| matches!(entry.profile, Profile::Leaf(_));
    entries
        .iter()
        .filter(signed)
        .filter(|entry| leaf(entry) || ca.entry.profile == Profile::Root)
        .filter(|entry| entry.is_live(now))
        .count()
}

/// What to do next.
fn advice(what: CaKind, rotation: &Rotation, authority: &Authority) -> String {
    let files = authority.files();
    let (roots, crls) = (files.root_certificate.display(), files.crl.display());
    let command = |step: &str| format!("lizctl rotate {} {step}", rotation.rotated.unwrap_or(what));
    match (rotation.stage, rotation.rotated) {
        (Stage::Published, Some(CaKind::Root)) => format!(
            "next: give every receiver and host {roots} and {crls}, or wait until all have renewed, or renew those listed with the commands shown; then {}, or {}",
            command("--next"),
            command("--back"),
        ),
        (Stage::Published, _) => format!(
            "next: make sure that every receiver has {crls}; then {}, or {}",
            command("--next"),
            command("--back"),
        ),
        (Stage::InUse, _) => format!(
            "next: wait until all have renewed, or renew those listed with the commands shown; then {}, or {}",
            command("--next"),
            command("--back"),
        ),
        (Stage::Steady, Some(rotated)) => format!(
            "done: copy {crls} to receivers that do not read it here; `lizctl rotate {rotated} --back` trusts the old one again"
        ),
        (Stage::Steady, None) => format!(
            "next: lizctl rotate {what} --next publishes a new {}",
            title(what)
        ),
    }
}

fn title(rotated: CaKind) -> &'static str {
    match rotated {
        CaKind::Issuing => "issuing CA",
        CaKind::Root => "root",
    }
}
