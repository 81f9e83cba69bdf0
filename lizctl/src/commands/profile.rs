//! `profile`: named connections, and which of them is used.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::connection::{self, ChosenProfile, Server};
use crate::context::Context;
use crate::failure::Exit;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::output;
use crate::profile::{self, ConnectionProfile, ProfileFile, ProfileFileError};

/// List the profiles, choose the default one, show the connection that is used
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProfileArgs {
    #[command(subcommand)]
    verb: ProfileVerb,
}

const EXAMPLES: &str = "\
A profile names a receiver, a certificate, its key and the CA's root, so that no flag is needed:

  # ~/.config/lizmon/config.toml
  default = \"home\"

  [profiles.home]
  receiver = \"https://rx1.example:8443\"
  cert = \"ada.crt\"
  key = \"ada.key\"
  ca = \"root.crt\"

A relative path is one below the file's folder. Flags and LIZMON_ variables take precedence, one by
one; --cert and --key go together. Without a profile, profile.toml in --certs is used, which
`lizctl up` writes.";

#[derive(Debug, Subcommand)]
enum ProfileVerb {
    List(ListArgs),
    Use(UseArgs),
    Show(ShowArgs),
}

/// List the profiles; * marks the default one
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    output: OutputFlags,
}

/// Make a profile the default one
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl profile use home")]
struct UseArgs {
    /// The profile
    name: String,
}

/// Show the connection that a verb would use here, and where each part of it is from
#[derive(Debug, Args)]
#[command(after_help = "Example: lizctl profile show --profile home")]
struct ShowArgs {
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl profile`.
pub(crate) fn run(args: &ProfileArgs, context: &Context) -> anyhow::Result<()> {
    match &args.verb {
        ProfileVerb::List(args) => list(args, context),
        ProfileVerb::Use(args) => choose(args, context),
        ProfileVerb::Show(args) => show(args, context),
    }
}

fn list(args: &ListArgs, context: &Context) -> anyhow::Result<()> {
    let file = match &context.profiles {
        Some(path) => ProfileFile::read(path).context(Exit::Usage)?,
        None => ProfileFile::default(),
    };
    let local = profile::read_local(&context.certs).context(Exit::Usage)?;
    let local_file = profile::local_file(&context.certs);
    if args.output.is_json() {
        let profiles = file.profiles.iter().map(|(name, profile)| {
            let mut value = as_json(profile);
            value["name"] = json!(name);
            value["default"] = json!(file.default.as_ref() == Some(name));
            value
        });
        return output::json(&json!({
            "file": context.profiles,
            "profiles": profiles.collect::<Vec<_>>(),
            "local-file": local.as_ref().map(|_| &local_file),
            "local": local.as_ref().map(as_json),
        }));
    }
    let row = |name: String, profile: &ConnectionProfile| {
        let receiver = profile.receiver.as_ref().map(ToString::to_string);
        let shown = |path: &Option<PathBuf>| path.as_deref().map_or_else(dash, shown);
        [name, receiver.unwrap_or_else(dash), shown(&profile.cert)]
    };
    let mut rows: Vec<[String; 3]> = file
        .profiles
        .iter()
        .map(|(name, profile)| {
            let mark = if file.default.as_ref() == Some(name) {
                "* "
            } else {
                ""
            };
            row(format!("{mark}{}", name.escape_debug()), profile)
        })
        .collect();
    rows.extend(local.map(|profile| row(format!("({})", shown(&local_file)), &profile)));
    if rows.is_empty() {
        output::note(
            "there are no profiles: `lizctl join`, `lizctl issue-reader` and `lizctl up` write one",
        );
        return Ok(());
    }
    output::table(["PROFILE", "RECEIVER", "CERTIFICATE"], rows)
}

fn choose(args: &UseArgs, context: &Context) -> anyhow::Result<()> {
    let path = context.profiles.as_ref().ok_or(ProfileFileError::NoHome);
    let path = path.context(Exit::Usage)?;
    let file = ProfileFile::read(path).context(Exit::Usage)?;
    file.named(&args.name).context(Exit::Usage)?;
    file.set_default(&args.name)?;
    output::note(format_args!(
        "{} is the default profile in {}",
        args.name.escape_debug(),
        shown(path)
    ));
    Ok(())
}

fn show(args: &ShowArgs, context: &Context) -> anyhow::Result<()> {
    let flags = &args.connection;
    let given = flags.given();
    let chosen = connection::chosen_profile(&given, (&flags.0.profile, Server::Receiver), context)?;
    let profile = chosen.as_ref().map(|chosen| chosen.profile.clone());
    let whole = connection::with_profile(given.clone(), profile);
    // A connection that lacks something is shown all the same, and is a failure.
    let connection = flags.connection(context);
    let parts = whole.pairs().into_iter().zip(given.pairs());
    let rows = parts.map(|((key, value), (_, given))| {
        let from = match (&value, &given) {
            (None, _) => dash(),
            (Some(_), Some(_)) => format!("--{key} or LIZMON_{}", key.to_uppercase()),
            (Some(_), None) => chosen.as_ref().map_or_else(dash, source),
        };
        (key, value, from)
    });
    let rows: Vec<_> = rows.collect();
    if args.output.is_json() {
        let parts = rows.iter().map(|(key, value, from)| {
            let from = value.as_ref().map(|_| from);
            ((*key).to_owned(), json!({"value": value, "from": from}))
        });
        output::json(&parts.collect::<serde_json::Map<_, _>>())?;
    } else {
        let rows = rows.into_iter().map(|(key, value, from)| {
            let value = value.map_or_else(dash, |value| value.escape_debug().to_string());
            [key.to_owned(), value, from]
        });
        output::table(["PART", "VALUE", "FROM"], rows.collect())?;
    }
    connection.map(drop)
}

fn source(chosen: &ChosenProfile) -> String {
    match &chosen.name {
        Some(name) => format!("profile {} in {}", name.escape_debug(), shown(&chosen.file)),
        None => shown(&chosen.file),
    }
}

fn as_json(profile: &ConnectionProfile) -> serde_json::Value {
    let pairs = profile.pairs().into_iter();
    let pairs = pairs.map(|(key, value)| (key.to_owned(), json!(value)));
    pairs.collect::<serde_json::Map<_, _>>().into()
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn dash() -> String {
    "-".to_owned()
}
