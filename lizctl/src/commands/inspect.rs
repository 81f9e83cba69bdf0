//! `inspect`: shows the contents of a file.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use lizmon_ca::pki::inspect::{self, Item, Revoked};

use crate::flags::output::OutputFlags;
use crate::{input, output};

/// Show the contents of a certificate, key, CRL or signing request
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl inspect certs/nodes/web1.crt")]
pub(crate) struct InspectArgs {
    /// The file (PEM or DER)
    file: PathBuf,
    #[command(flatten)]
    output: OutputFlags,
}

/// `lizctl inspect`.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let file = args.file.display();
    let items = inspect::inspect(&input::read(&args.file)?).with_context(|| file.to_string())?;
    if args.output.is_json() {
        return output::json(&serde_json::json!({ "items": items }));
    }
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            output::line("")?;
        }
        show(item)?;
    }
    Ok(())
}

/// Prints one field per line. Absent fields are left out.
fn show(item: &Item) -> anyhow::Result<()> {
    let list = |all: &[String]| (!all.is_empty()).then(|| all.join(", "));
    let fields: Vec<(&str, Option<String>)> = match item {
        Item::Certificate {
            subject,
            issuer,
            serial,
            uris,
            names,
            attributes,
            not_before,
            not_after,
            key,
            key_sha256,
            signature,
            ca,
            path_len,
            key_usage,
            extended_key_usage,
            subject_key_id,
            authority_key_id,
            sha256,
        } => vec![
            ("certificate", Some(subject.clone())),
            ("issuer", Some(issuer.clone())),
            ("serial", Some(serial.clone())),
            ("identity", list(uris)),
            ("names", list(names)),
            ("attributes", list(attributes)),
            ("from", Some(output::date(*not_before))),
            ("until", Some(output::date(*not_after))),
            ("key", Some(format!("{key}, SHA-256 {key_sha256}"))),
            ("signature", Some(signature.clone())),
            ("CA", Some(ca_text(*ca, *path_len))),
            ("key usage", list(key_usage)),
            ("extended key usage", list(extended_key_usage)),
            ("subject key id", subject_key_id.clone()),
            ("authority key id", authority_key_id.clone()),
            ("SHA-256", Some(sha256.clone())),
        ],
        Item::EncryptedPrivateKey { encryption } => {
            vec![("encrypted private key", Some(encryption.clone()))]
        }
        Item::PrivateKey { key, key_sha256 } => {
            vec![("private key", Some(format!("{key}, SHA-256 {key_sha256}")))]
        }
        Item::Crl {
            issuer,
            number,
            this_update,
            next_update,
            authority_key_id,
            signature,
            revoked,
        } => {
            let mut fields = vec![
                ("CRL of", Some(issuer.clone())),
                ("number", number.clone()),
                ("from", Some(output::date(*this_update))),
                ("until", next_update.map(output::date)),
                ("signature", Some(signature.clone())),
                ("authority key id", authority_key_id.clone()),
                ("revoked", Some(revoked.len().to_string())),
            ];
            fields.extend(
                revoked
                    .iter()
                    .map(|entry| ("  serial", Some(revoked_text(entry)))),
            );
            fields
        }
        Item::SigningRequest {
            subject,
            key,
            key_sha256,
            signature,
            signature_is_good,
        } => vec![
            ("signing request", Some(subject.clone())),
            ("key", Some(format!("{key}, SHA-256 {key_sha256}"))),
            ("signature", Some(signature.clone())),
            ("signed by its key", Some(yes_no(*signature_is_good))),
        ],
    };
    for (name, value) in fields {
        if let Some(value) = value {
            output::line(format_args!("{name}: {value}"))?;
        }
    }
    Ok(())
}

fn ca_text(ca: bool, path_len: Option<u32>) -> String {
    match path_len {
        Some(length) if ca => format!("yes, path length {length}"),
        _ => yes_no(ca),
    }
}

fn revoked_text(entry: &Revoked) -> String {
    let reason = entry.reason.as_deref().unwrap_or("no reason given");
    format!(
        "{} since {}, {reason}",
        entry.serial,
        output::date(entry.since)
    )
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
