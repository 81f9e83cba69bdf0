//! `join`: obtains this machine's first certificate from `liz-ca`.

use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use lizmon_client::{BaseUrl, Credentials};
use lizmon_enrol::{JoinRequest, Obtained, RootFingerprint};
use lizmon_protocol::enrol::JoinToken;
use lizmon_protocol::name::Role;

use crate::context::{Context, quoted};
use crate::failure::Exit;
use crate::receiver_url::parse_receiver;
use crate::{enrolment, first_profile, output, runtime};

/// Longest token on stdin: the longest name, a dot, the secret and a line end.
const TOKEN_BYTES_MAX: u64 = 300;

/// Join a fleet: generate a key and obtain this machine's certificate from liz-ca with a join token
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lizctl join https://ca.example:8444 --token TOKEN --ca-fingerprint HEX --out certs\n\n\
                  Nothing is trusted until the root's fingerprint matches, and the token is sent to no other CA.\n\
                  If the response is lost, run the same command again: it continues with the same key."
)]
pub(crate) struct JoinArgs {
    /// URL of liz-ca: https://HOST:8444
    url: BaseUrl,
    /// The join token that `lizctl join-token` printed; - reads it from stdin
    #[arg(
        long,
        env = "LIZMON_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: String,
    /// SHA-256 fingerprint of the CA's root in hex, as `lizctl join-token` and `lizctl init-ca`
    /// print it
    #[arg(long, env = "LIZMON_CA_FINGERPRINT", value_name = "HEX")]
    ca_fingerprint: RootFingerprint,
    /// Folder for NAME.crt, NAME.key and root.crt [default: --certs]
    #[arg(long, env = "LIZMON_OUT", value_name = "DIR")]
    out: Option<PathBuf>,
    /// URL of the receiver: for the profile that a reader or operator gets, and for the command of a
    /// node that is printed. https://HOST:8443
    #[arg(long, env = "LIZMON_RECEIVER", value_name = "URL", value_parser = parse_receiver)]
    receiver: Option<BaseUrl>,
}

/// `lizctl join`.
pub(crate) fn run(args: &JoinArgs, context: &Context) -> anyhow::Result<()> {
    let token = token_text(&args.token)?.trim().parse::<JoinToken>();
    let token = token.map_err(|error| anyhow::Error::from(error).context(Exit::Usage))?;
    let folder = args.out.as_deref().unwrap_or(&context.certs);
    make_folder(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let join = JoinRequest {
        url: args.url.clone(),
        token,
        fingerprint: args.ca_fingerprint,
        folder: folder.to_owned(),
    };
    let now = (context.clock)();
    let obtained = runtime::current_thread()?.block_on(lizmon_enrol::join(&join, now))?;
    enrolment::show(&obtained)?;
    if matches!(obtained.identity.role, Role::Reader | Role::Operator) {
        let name = obtained.identity.name.as_str();
        let urls = (args.receiver.clone(), Some(args.url.clone()));
        first_profile::keep(name, urls, &obtained.credentials, context);
    }
    let receiver = args.receiver.as_ref();
    output::note(format_args!(
        "next: {}",
        next(&obtained, &args.url, receiver)
    ));
    Ok(())
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

/// Creates the folder with mode 0700, unless it exists.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The command that the holder of this certificate runs next.
fn next(obtained: &Obtained, ca_url: &BaseUrl, receiver: Option<&BaseUrl>) -> String {
    let receiver = receiver.map_or("https://RECEIVER:8443", BaseUrl::as_str);
    let Credentials { cert, key, ca } = &obtained.credentials;
    let files = format!(
        "--cert {} --key {} --ca {}",
        quoted(cert),
        quoted(key),
        quoted(ca)
    );
    match obtained.identity.role {
        Role::Node => format!(
            "liz-monitor --this-host {} --publish {}/api/perf {files} --ca-url {ca_url} --spool spool",
            obtained.identity.name,
            receiver.trim_end_matches('/'),
        ),
        Role::Receiver => format!("liz-receiver --listen 0.0.0.0:8443 {files} --ca-url {ca_url}"),
        Role::Summarizer => {
            format!("liz-summarizer --store redis://HOST:6379 {files} --ca-url {ca_url}")
        }
        Role::Gateway => format!("lizctl push HOST label=value --receiver {receiver} {files}"),
        Role::Proxy => format!(
            "give {} and {} to the load balancer, and start receivers with --trusted-proxy",
            quoted(cert),
            quoted(key)
        ),
        _ => format!("lizctl hosts --receiver {receiver} {files}"),
    }
}
