//! `issue-reader`: issues the certificate of a reader.

use std::path::Path;

use clap::Args;
use lizmon_ca::authority::{Authority, Issued, Request};
use lizmon_ca::files::CaFiles;
use lizmon_client::{BaseUrl, Credentials};
use lizmon_protocol::name::{NodeName, Role};

use crate::context::{Context, quoted};
use crate::first_profile::{self, only_receiver};
use crate::flags::attributes::AttributeFlags;
use crate::flags::leaf::LeafFlags;
use crate::pkcs12::Pkcs12Flags;
use crate::profile::{self, ConnectionProfile};
use crate::receiver_url::parse_receiver;
use crate::{issuance, output};

/// Issue the certificate of a reader of summaries
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl issue-reader alice\n  lizctl issue-reader alice --p12 alice.p12\n  \
                  lizctl issue-reader web-team --hosts 'web*' --tag env=prod"
)]
pub(crate) struct IssueReaderArgs {
    /// Name of the reader
    name: NodeName,
    #[command(flatten)]
    limits: AttributeFlags,
    #[command(flatten)]
    leaf: LeafFlags,
    #[command(flatten)]
    pkcs12: Pkcs12Flags,
    /// URL of the receiver for the profile that is written [default: that of the only receiver with
    /// a certificate]
    #[arg(long, env = "LIZMON_RECEIVER", value_name = "URL", value_parser = parse_receiver)]
    receiver: Option<BaseUrl>,
}

/// `lizctl issue-reader`.
pub(crate) fn run(args: IssueReaderArgs, context: &Context) -> anyhow::Result<()> {
    let export = args.pkcs12.prepare()?;
    let request = Request {
        attributes: args.limits.attributes(),
        ..issuance::request(Role::Reader, args.name, &args.leaf)?
    };
    let mut receiver = args.receiver;
    let next = |issued: &Issued, authority: &Authority| {
        receiver = receiver
            .take()
            .or_else(|| only_receiver(authority, context));
        issuance::next_for_reader(issued, authority)
    };
    let issued = issuance::issue(request, &args.leaf, context, next)?;
    if let Some(issued) = &issued {
        keep_profile(issued, receiver, args.leaf.out.as_deref(), context)?;
    }
    if let Some((export, issued)) = export.zip(issued) {
        let file = export.write(&issued)?;
        output::line(format_args!("for browsers: {}", file.display()))?;
    }
    Ok(())
}

/// In the folder that the reader gets, if there is one, else in the file of this person. Without the
/// key here there is nothing to use it with.
fn keep_profile(
    issued: &Issued,
    receiver: Option<BaseUrl>,
    out: Option<&Path>,
    context: &Context,
) -> anyhow::Result<()> {
    let Some(key) = &issued.key_path else {
        return Ok(());
    };
    let name = issued.spiffe_id.name.as_str();
    let local = profile::read_local(&context.certs).ok().flatten();
    let ca_url = local.and_then(|profile| profile.ca_url);
    let Some(folder) = out else {
        let credentials = Credentials {
            cert: issued.certificate_path.clone(),
            key: key.clone(),
            ca: CaFiles::new(&context.certs).root_certificate,
        };
        first_profile::keep(name, (receiver, ca_url), &credentials, context);
        return Ok(());
    };
    let profile = ConnectionProfile {
        receiver,
        cert: Some(folder.join(format!("{name}.crt"))),
        key: Some(folder.join(format!("{name}.key"))),
        ca: Some(folder.join("root.crt")),
        ca_url,
    };
    if let Some(file) = profile::write_local(folder, &profile)? {
        output::note(format_args!(
            "wrote {}: with `--certs {}` lizctl needs no other flag",
            file.display(),
            quoted(folder)
        ));
    }
    Ok(())
}
