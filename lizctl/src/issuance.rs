//! What the `issue-` verbs share: the request, the output and the advice.

use std::path::Path;

use anyhow::Context as _;
use lizmon_ca::authority::{Authority, Issued, KeySource, Request};
use lizmon_ca::files::disk::{self, Access};
use lizmon_ca::pki::csr;
use lizmon_protocol::name::{NodeName, Role};

use crate::context::{Context, quoted};
use crate::flags::leaf::LeafFlags;
use crate::{input, output};

/// Issues one certificate, prints it, and advises what to do with it. None is issued if `leaf` says
/// so.
pub(crate) fn issue(
    request: Request,
    leaf: &LeafFlags,
    context: &Context,
    next: impl FnOnce(&Issued, &Authority) -> String,
) -> anyhow::Result<Option<Issued>> {
    if let Some(present) = leaf.present(&request.name) {
        note_present(&present);
        return Ok(None);
    }
    let now = (context.clock)();
    let authority = context.authority(now)?;
    let issued = authority.issue(request, now)?;
    show(&issued)?;
    deliver(&issued, &authority, leaf)?;
    output::note(next(&issued, &authority));
    Ok(Some(issued))
}

pub(crate) fn note_present(certificate: &Path) {
    output::note(format_args!("{} is there already", certificate.display()));
}

/// Writes what the holder's machine needs into the folder of `--out`.
pub(crate) fn deliver(
    issued: &Issued,
    authority: &Authority,
    leaf: &LeafFlags,
) -> anyhow::Result<()> {
    let Some(folder) = &leaf.out else {
        return Ok(());
    };
    disk::create_folder(folder)?;
    let name = &issued.spiffe_id.name;
    let files = authority.files();
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    if let Some(key) = &issued.key_path {
        let key = read(key)?;
        disk::write(&folder.join(format!("{name}.key")), &key, Access::Secret)?;
    }
    for (from, to) in [
        (&files.root_certificate, "root.crt"),
        (&files.crl, "crl.pem"),
    ] {
        disk::write(&folder.join(to), &read(from)?, Access::Public)?;
    }
    // Last: when it is there, everything is.
    let certificate = folder.join(format!("{name}.crt"));
    disk::write(&certificate, issued.chain_pem.as_bytes(), Access::Public)?;
    output::line(format_args!("{}", certificate.display()))
}

pub(crate) fn request(role: Role, name: NodeName, leaf: &LeafFlags) -> anyhow::Result<Request> {
    Ok(Request {
        lifetime: leaf.lifetime(),
        key: key_source(leaf)?,
        ..Request::new(role, name)
    })
}

pub(crate) fn key_source(leaf: &LeafFlags) -> anyhow::Result<KeySource> {
    let Some(file) = &leaf.csr else {
        return Ok(KeySource::New(leaf.key_alg.unwrap_or_default()));
    };
    let bytes = input::read(file)?;
    let der = csr::read(&bytes).with_context(|| file.display().to_string())?;
    Ok(KeySource::Csr(der))
}

pub(crate) fn next_for_reader(issued: &Issued, authority: &Authority) -> String {
    format!(
        "next: lizctl hosts --receiver https://RECEIVER:8443 {}",
        credential_flags(issued, authority)
    )
}

pub(crate) fn show(issued: &Issued) -> anyhow::Result<()> {
    let key = match &issued.key_path {
        Some(path) => format!(", key {}", path.display()),
        None => String::new(),
    };
    let cut_short = if issued.cut_short {
        " (the issuing CA ends then)"
    } else {
        ""
    };
    output::line(format_args!(
        "{} {}: {}{key}, until {}{cut_short}",
        issued.spiffe_id.role,
        issued.spiffe_id.name,
        issued.certificate_path.display(),
        output::date(issued.validity.not_after),
    ))
}

/// The flags that give this certificate to a lizmon program.
pub(crate) fn credential_flags(issued: &Issued, authority: &Authority) -> String {
    let key = match &issued.key_path {
        Some(path) => quoted(path),
        None => "KEY".to_owned(),
    };
    format!(
        "--cert {} --key {key} --ca {}",
        quoted(&issued.certificate_path),
        quoted(&authority.files().root_certificate),
    )
}
