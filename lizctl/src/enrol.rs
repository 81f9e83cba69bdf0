//! `join-token`, `join` and `renew`: certificates over the network, from a `liz-ca`.

use std::io::{IsTerminal, Read, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lizmon_client::enrol::{self, Fingerprint, Join as Joining, Obtained};
use lizmon_client::{BaseUrl, Credentials};
use lizmon_protocol::enrol::JoinToken as Token;
use lizmon_protocol::name::{NodeName, Role};

use crate::cli::Context;
use crate::failure::Exit;
use crate::output;

/// Longest text of a token on stdin: the longest name, a dot, the secret and a line's end.
const TOKEN_BYTES_MAX: u64 = 300;

#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// Whom it lets in
    name: NodeName,
    /// As what: node, reader or operator
    #[arg(long, env = "LIZMON_ROLE", value_name = "ROLE", default_value = "node")]
    role: Role,
    /// How long it can be used, at most 7 days
    #[arg(long, env = "LIZMON_TTL", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Where liz-ca is, for the command that is printed
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    ca_url: Option<BaseUrl>,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Where liz-ca is: https://HOST:8444
    url: BaseUrl,
    /// The token, as `lizctl join-token` printed it; - reads it from stdin
    #[arg(
        long,
        env = "LIZMON_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: String,
    /// SHA-256 of the CA's root, in hex, as `lizctl join-token` and `lizctl init-ca` print it
    #[arg(long, env = "LIZMON_CA_FINGERPRINT", value_name = "HEX")]
    ca_fingerprint: Fingerprint,
    /// Folder for NAME.crt, NAME.key and root.crt [default: --certs]
    #[arg(long, env = "LIZMON_OUT", value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// Where liz-ca is: https://HOST:8444
    #[arg(long, env = "LIZMON_CA_URL", value_name = "URL")]
    ca_url: BaseUrl,
    /// The certificate to be renewed (PEM); it is replaced
    #[arg(long, env = "LIZMON_CERT", value_name = "FILE")]
    cert: PathBuf,
    /// Its key (PEM); it is replaced by a new one
    #[arg(long, env = "LIZMON_KEY", value_name = "FILE")]
    key: PathBuf,
    /// The root certificate (PEM); it is replaced when the CA's roots change
    #[arg(long, env = "LIZMON_CA", value_name = "FILE")]
    ca: PathBuf,
}

/// `lizctl join-token`: the token alone goes to stdout.
pub(crate) fn join_token(args: &JoinToken, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let authority = context.authority(now)?;
    let token = authority.make_join_token(args.role, &args.name, args.ttl, now)?;
    output::line(token.as_str())?;
    let url = match &args.ca_url {
        Some(url) => url.as_str(),
        None => "https://CA-HOST:8444",
    };
    // On a terminal it can be copied whole; in a script's log the secret has no place.
    let shown = if stdout().is_terminal() {
        token.as_str()
    } else {
        "TOKEN"
    };
    let fingerprint = authority.root_fingerprint();
    output::note(format_args!(
        "{} {} may join once, until {}",
        args.role,
        args.name,
        output::date(now.saturating_add(args.ttl.as_secs())),
    ));
    output::note(format_args!("CA fingerprint {fingerprint}"));
    output::note(format_args!(
        "next, on {}: lizctl join {url} --token {shown} --ca-fingerprint {fingerprint}",
        args.name,
    ));
    Ok(())
}

/// `lizctl join`.
pub(crate) fn join(args: &Join, context: &Context) -> anyhow::Result<()> {
    let token = token_text(&args.token)?.trim().parse::<Token>();
    let token = token.map_err(|error| anyhow::Error::from(error).context(Exit::Usage))?;
    let folder = args.out.as_deref().unwrap_or(&context.certs);
    make_folder(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let joining = Joining {
        url: args.url.clone(),
        token,
        fingerprint: args.ca_fingerprint,
        folder: folder.to_owned(),
    };
    let now = (context.clock)();
    let obtained = runtime()?.block_on(enrol::join(&joining, now))?;
    show(&obtained)?;
    output::note(format_args!("next: {}", next(&obtained, &args.url)));
    Ok(())
}

/// `lizctl renew`.
pub(crate) fn renew(args: &Renew, context: &Context) -> anyhow::Result<()> {
    let credentials = Credentials {
        cert: args.cert.clone(),
        key: args.key.clone(),
        ca: args.ca.clone(),
    };
    let now = (context.clock)();
    let obtained = runtime()?.block_on(enrol::renew(&args.ca_url, &credentials, now))?;
    show(&obtained)?;
    if obtained.not_before > now {
        output::note(format_args!(
            "it begins at {}, and the clock here says {}: this machine's clock is behind the CA's",
            output::date(obtained.not_before),
            output::date(now)
        ));
    }
    if obtained.roots_changed {
        output::note(format_args!(
            "{} was brought to what the CA trusts now",
            args.ca.display()
        ));
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

fn token_text(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    stdin()
        .take(TOKEN_BYTES_MAX)
        .read_to_string(&mut text)
        .context("cannot read the token from stdin")?;
    Ok(text)
}

/// For its owner alone, if it is made here.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn show(obtained: &Obtained) -> anyhow::Result<()> {
    output::line(format_args!(
        "{} {}: {}, key {}, until {}",
        obtained.identity.role,
        obtained.identity.name,
        obtained.credentials.cert.display(),
        obtained.credentials.key.display(),
        output::date(obtained.not_after),
    ))
}

/// What the holder of this certificate would do with it.
fn next(obtained: &Obtained, ca_url: &BaseUrl) -> String {
    let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
    let Credentials { cert, key, ca } = &obtained.credentials;
    let files = format!(
        "--cert {} --key {} --ca {}",
        quoted(cert),
        quoted(key),
        quoted(ca)
    );
    match obtained.identity.role {
        Role::Node => format!(
            "liz-monitor --this-host {} --publish https://RECEIVER:8443/api/perf {files} --ca-url {ca_url}",
            obtained.identity.name,
        ),
        _ => format!("lizctl hosts --receiver https://RECEIVER:8443 {files}"),
    }
}
