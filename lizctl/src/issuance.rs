//! What the `issue-` verbs share: the request, the output and the advice.

use std::path::Path;

use anyhow::Context as _;
use lizmon_ca::authority::{Authority, Issued, KeySource, Request};
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
    if present(&request.name, request.role, leaf, context)? {
        return Ok(None);
    }
    let now = (context.clock)();
    let authority = context.authority(now)?;
    let issued = authority.issue(request, now)?;
    show(&issued)?;
    deliver(
        std::slice::from_ref(&issued),
        &authority,
        leaf.out.as_deref(),
    )?;
    output::note(next(&issued, &authority));
    Ok(Some(issued))
}

/// Those of the names whose certificates are to be issued. How many are there already is noted.
pub(crate) fn missing(
    names: Vec<NodeName>,
    role: Role,
    leaf: &LeafFlags,
    context: &Context,
) -> anyhow::Result<Vec<NodeName>> {
    if let [name] = names.as_slice() {
        let is_present = present(name, role, leaf, context)?;
        return Ok(if is_present { Vec::new() } else { names });
    }
    let count = names.len();
    let mut missing = Vec::new();
    for name in names {
        if !leaf.is_present(&name, role, &context.certs)? {
            missing.push(name);
        }
    }
    let there = count - missing.len();
    if there > 0 {
        output::note(format_args!("{there} of {count} are there already"));
    }
    Ok(missing)
}

/// Whether the certificate need not be issued again, which is noted.
fn present(
    name: &NodeName,
    role: Role,
    leaf: &LeafFlags,
    context: &Context,
) -> anyhow::Result<bool> {
    let is_present = leaf.is_present(name, role, &context.certs)?;
    if is_present {
        let certificate = leaf.certificate(name, role, &context.certs);
        output::note(format_args!("{} is there already", certificate.display()));
    }
    Ok(is_present)
}

/// Writes what the holders' machines need into the folder of `--out`.
pub(crate) fn deliver(
    issued: &[Issued],
    authority: &Authority,
    out: Option<&Path>,
) -> anyhow::Result<()> {
    let Some(folder) = out else {
        return Ok(());
    };
    for certificate in authority.deliver(issued, folder)? {
        output::line(certificate.display())?;
    }
    Ok(())
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
