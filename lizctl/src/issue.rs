//! `init-ca` and the `issue-` verbs.

use std::io::{BufRead, BufReader, stdin};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use lizmon_ca::authority::{Authority, InitOptions, Issued, KeySource, Request};
use lizmon_ca::est;
use lizmon_daemon::args::items;
use lizmon_protocol::name::{NodeName, Role};

use crate::cli::{Context, InitCa, IssueNode, IssueOne, IssueReader, IssueReceiver, Leaf};
use crate::failure::Exit;
use crate::output;

/// A sign of life each this many certificates.
const PROGRESS_EVERY: usize = 100;

/// `lizctl init-ca`.
pub(crate) fn init_ca(args: &InitCa, context: &Context) -> anyhow::Result<()> {
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
    let until = |validity: lizmon_ca::profile::Validity| output::date(validity.not_after);
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
            "lists       {}, until {}: liz-ca signs them again, and any lizctl command that opens the CA",
            files.crl.display(),
            output::date(end),
        ))?;
    }
    output::note(format_args!(
        "next: lizctl{} issue-receiver NAME --san DNS-OR-IP; {} may be taken offline",
        certs_flag(context),
        root_key.display(),
    ));
    Ok(())
}

/// `lizctl issue-node`.
pub(crate) fn nodes(args: IssueNode, context: &Context) -> anyhow::Result<()> {
    let mut names = args.names;
    if let Some(file) = &args.from {
        names.extend(names_in(file)?);
    }
    if names.is_empty() {
        bail!("no names: give at least one");
    }
    if args.leaf.csr.is_some() && names.len() > 1 {
        return Err(anyhow!("a signing request is for one name").context(Exit::Usage));
    }
    let key = key_source(&args.leaf)?;
    let now = (context.clock)();
    let authority = context.authority(now)?;
    authority.check_names(Role::Node, &names)?;
    let count = names.len();
    let mut last = None;
    for (done, name) in names.into_iter().enumerate() {
        let request = Request {
            lifetime: args.leaf.lifetime(),
            key: key.clone(),
            ..Request::new(Role::Node, name.clone())
        };
        let issued = authority
            .issue(request, now)
            .with_context(|| format!("{name}, after {done} of {count} were issued"))?;
        show(&issued)?;
        if (done + 1) % PROGRESS_EVERY == 0 {
            output::note(format_args!("issued {} of {count}", done + 1));
        }
        last = Some(issued);
    }
    if let Some(issued) = last {
        output::note(format_args!(
            "next, on {}: liz-monitor --this-host {} --publish https://RECEIVER:8443/api/perf {}",
            issued.spiffe_id.name,
            issued.spiffe_id.name,
            credentials(&issued, &authority),
        ));
    }
    Ok(())
}

/// `lizctl issue-receiver`.
pub(crate) fn receiver(args: IssueReceiver, context: &Context) -> anyhow::Result<()> {
    let request = Request {
        sans: items(args.sans),
        ..request(Role::Receiver, args.name, &args.leaf)?
    };
    one(request, context, |issued, authority| {
        format!(
            "next: liz-receiver --listen 0.0.0.0:8443 {} --crl {}",
            credentials(issued, authority),
            authority.files().crl.display(),
        )
    })
    .map(drop)
}

/// `lizctl issue-reader`.
pub(crate) fn reader(args: IssueReader, context: &Context) -> anyhow::Result<()> {
    let wanted = args.p12.wanted()?;
    let request = request(Role::Reader, args.one.name, &args.one.leaf)?;
    let issued = one(request, context, asks_a_receiver)?;
    if let Some(wanted) = wanted {
        let file = wanted.write(&issued)?;
        output::line(format_args!("for browsers: {}", file.display()))?;
    }
    Ok(())
}

/// `lizctl issue-operator`.
pub(crate) fn operator(args: IssueOne, context: &Context) -> anyhow::Result<()> {
    let request = request(Role::Operator, args.name, &args.leaf)?;
    one(request, context, asks_a_receiver).map(drop)
}

fn asks_a_receiver(issued: &Issued, authority: &Authority) -> String {
    format!(
        "next: lizctl hosts --receiver https://RECEIVER:8443 {}",
        credentials(issued, authority)
    )
}

fn one(
    request: Request,
    context: &Context,
    next: impl FnOnce(&Issued, &Authority) -> String,
) -> anyhow::Result<Issued> {
    let now = (context.clock)();
    let authority = context.authority(now)?;
    let issued = authority.issue(request, now)?;
    show(&issued)?;
    output::note(next(&issued, &authority));
    Ok(issued)
}

fn request(role: Role, name: NodeName, leaf: &Leaf) -> anyhow::Result<Request> {
    Ok(Request {
        lifetime: leaf.lifetime(),
        key: key_source(leaf)?,
        ..Request::new(role, name)
    })
}

fn key_source(leaf: &Leaf) -> anyhow::Result<KeySource> {
    let Some(file) = &leaf.csr else {
        return Ok(KeySource::New(leaf.key_alg.unwrap_or_default()));
    };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let der = est::read_request(&bytes).with_context(|| file.display().to_string())?;
    Ok(KeySource::Csr(der))
}

/// One name a line; what follows a # is a comment.
fn names_in(file: &Path) -> anyhow::Result<Vec<NodeName>> {
    let shown = file.display();
    let reader: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(stdin().lock())
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("cannot read {shown}"))?;
        Box::new(BufReader::new(opened))
    };
    let mut names = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        let name = line.split('#').next().unwrap_or_default().trim();
        if !name.is_empty() {
            let name = name.parse();
            names.push(name.with_context(|| format!("{shown}, line {}", index + 1))?);
        }
    }
    Ok(names)
}

fn show(issued: &Issued) -> anyhow::Result<()> {
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

/// The flags that a program of ours is given.
fn credentials(issued: &Issued, authority: &Authority) -> String {
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

pub(crate) fn certs_flag(context: &Context) -> String {
    if context.certs == Path::new("certs") {
        String::new()
    } else {
        format!(" --certs {}", quoted(&context.certs))
    }
}

/// As it can be typed into a shell.
fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}
