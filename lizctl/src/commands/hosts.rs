//! `hosts`: the hosts that report to a receiver, and what is wrong with them.

use clap::Args;
use lizmon_ca::authority::Authority;
use lizmon_ca::ledger::UnusedJoinToken;
use lizmon_protocol::summary::{Host, Hosts};
use serde_json::{Value, json};

use crate::context::Context;
use crate::flags::attributes::TagFilterFlags;
use crate::flags::connection::ConnectionFlags;
use crate::flags::output::OutputFlags;
use crate::host_state::{self, Trouble};
use crate::{output, runtime, view};

/// List the hosts that report to a receiver: newest values, and what is wrong, the worst first
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl hosts\n  lizctl hosts --tag env=prod\n  lizctl hosts --json\n\n\
                  Silent: overdue by its recent spacing; and which hours of the last day have no samples. Certificates\n\
                  that end within 36 hours were not renewed. Where --certs has a CA, its unused join tokens are listed."
)]
pub(crate) struct HostsArgs {
    #[command(flatten)]
    tags: TagFilterFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// `lizctl hosts`.
pub(crate) fn run(args: &HostsArgs, context: &Context) -> anyhow::Result<()> {
    let client = args.connection.client(context)?;
    let now = (context.clock)();
    let wanted = args.tags.filter();
    let (received, alarms) = runtime::current_thread()?.block_on(async {
        let received = client.hosts_json(&wanted, now).await?;
        // An older receiver knows no alarms.
        let alarms = client.alarms(&wanted, now).await.ok();
        Ok::<_, lizmon_client::Error>((received, alarms))
    })?;
    let mut firing = alarms.as_ref().map(host_state::firing).unwrap_or_default();
    let hosts: Hosts = serde_json::from_slice(&received)?;
    let limits = hosts.limits.clone();
    let blind = host_state::blind_hours(&hosts);
    let tokens = unused_tokens(context, now);
    let mut judged: Vec<(Host, Vec<Trouble>)> = hosts
        .hosts
        .into_iter()
        .map(|host| {
            let alarms = firing.remove(&host.name).unwrap_or_default();
            let mut troubles: Vec<_> = alarms.into_iter().map(Trouble::Alarm).collect();
            troubles.extend(host_state::troubles(&host, &blind, now));
            (host, troubles)
        })
        .collect();
    if args.output.is_json() {
        let blind = host_state::ranges(blind.into_iter());
        return output::json(&as_json(&received, &judged, &blind, tokens.as_deref())?);
    }
    if judged.is_empty() {
        output::note(host_state::why_none(&limits, !wanted.is_empty()));
    } else {
        host_state::by_trouble(&mut judged);
        let lines = view::hosts::lines(&judged, now);
        lines.iter().try_for_each(output::line)?;
        if !blind.is_empty() {
            output::note(format_args!(
                "no host at all has samples of {}: was the receiver down?",
                view::hosts::hours(&host_state::ranges(blind.into_iter()))
            ));
        }
    }
    show_tokens(tokens.unwrap_or_default())
}

/// As received, so that keys of later receivers are kept, with what was judged here.
fn as_json(
    received: &[u8],
    judged: &[(Host, Vec<Trouble>)],
    blind: &[(u64, u64)],
    tokens: Option<&[UnusedJoinToken]>,
) -> anyhow::Result<Value> {
    let mut all: Value = serde_json::from_slice(received)?;
    let hosts = all["hosts"].as_array_mut().into_iter().flatten();
    for (value, (_, troubles)) in hosts.zip(judged) {
        let codes: Vec<&str> = troubles.iter().map(Trouble::code).collect();
        value["troubles"] = json!(codes);
    }
    all["silent-hours-of-all"] = json!(blind);
    let tokens = tokens.map(|tokens| {
        let tokens = tokens.iter().map(|token| {
            json!({
                "name": token.name.as_str(),
                "role": token.role.as_str(),
                "created": token.created,
                "until": token.expires,
                "created-by": token.created_by,
            })
        });
        tokens.collect::<Vec<_>>()
    });
    all["unused-join-tokens"] = json!(tokens);
    Ok(all)
}

/// Those of the CA in `--certs`, if there is one. The hosts are shown without it, too.
fn unused_tokens(context: &Context, now: u64) -> Option<Vec<UnusedJoinToken>> {
    if !Authority::exists(&context.certs) {
        return None;
    }
    let authority = context.authority_to_read(now);
    match authority.and_then(|authority| authority.unused_join_tokens(now)) {
        Ok(tokens) => Some(tokens),
        Err(error) => {
            output::note(format_args!(
                "unused join tokens are not known: {}",
                lizmon_pki::error_chain::in_one_line(&error)
            ));
            None
        }
    }
}

fn show_tokens(tokens: Vec<UnusedJoinToken>) -> anyhow::Result<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    let rows = tokens.into_iter().map(|token| {
        let until = output::date(token.expires);
        let by = view::safe::text(&token.created_by);
        [token.name.to_string(), token.role.to_string(), until, by]
    });
    output::line("")?;
    output::table(
        ["UNUSED JOIN TOKEN", "ROLE", "UNTIL", "MADE BY"],
        rows.collect(),
    )
}
