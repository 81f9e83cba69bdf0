//! `list`: lists the certificates that were issued.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use lizmon_ca::ledger::{CertState, Entry, Generation, UnknownRevoked};
use lizmon_ca::pki::inspect::{self, Item};
use lizmon_ca::pki::{Profile, Reason};
use serde::Serialize;

use crate::context::Context;
use crate::flags::attributes::TagFilterFlags;
use crate::flags::connection::QueriedReceivers;
use crate::flags::output::OutputFlags;
use crate::let_in;
use crate::output;
use crate::unknown_certificates::{self, UnknownCertificate, UnknownCertificates};

/// List all certificates that were issued
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lizctl list\n  lizctl list --newest\n  lizctl list --tag env=prod\n  lizctl list --expiring 7d --json"
)]
pub(crate) struct ListArgs {
    /// Only holders whose newest certificate ends within this time or has ended, and is not renewed
    /// automatically
    #[arg(long, env = "LIZMON_EXPIRING", value_name = "TIME", value_parser = humantime::parse_duration)]
    expiring: Option<Duration>,
    /// Only revoked certificates
    #[arg(long, env = "LIZMON_REVOKED", value_parser = FalseyValueParser::new(), conflicts_with = "expiring")]
    revoked: bool,
    /// Only the newest certificate of each holder
    #[arg(long, env = "LIZMON_NEWEST", value_parser = FalseyValueParser::new(), conflicts_with = "expiring")]
    newest: bool,
    #[command(flatten)]
    tags: TagFilterFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    receivers: QueriedReceivers,
}

/// `lizctl list`.
pub(crate) fn run(args: &ListArgs, context: &Context) -> anyhow::Result<()> {
    let now = (context.clock)();
    let receivers = args.receivers.0.clients(context)?;
    let authority = context.authority_to_read(now)?;
    let seen_by_receivers = UnknownCertificates::query(&receivers, &authority, context)?;
    let mut entries = authority.entries()?;
    let mut renewals = RenewalHistory::new(&entries);
    renewals.first_uses = authority.first_uses()?.into_iter().collect();
    renewals.copied_at = authority.copied_at()?;
    let mut unknown = authority.unknown_revoked()?;
    let mut unrevoked: Vec<&UnknownCertificate> = seen_by_receivers.not_revoked(&unknown).collect();
    let wanted = args.tags.filter();
    // Of what the ledger does not know, no tags are known.
    if args.revoked || !wanted.is_empty() {
        unrevoked.clear();
    }
    if !wanted.is_empty() {
        unknown.clear();
    }
    if let Some(within) = args.expiring {
        let limit = now.saturating_add(within.as_secs());
        unrevoked.retain(|seen| seen.certificate.not_after <= limit);
    }
    let retirement = Retirement::new(&authority.generations()?, now);
    if args.newest {
        entries = newest(entries);
    }
    if !wanted.is_empty() {
        entries.retain(|entry| {
            let tags = attributes(entry)
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect();
            wanted.includes(&tags)
        });
    }
    if args.revoked {
        entries.retain(|entry| entry.state == CertState::Revoked);
    }
    if let Some(within) = args.expiring {
        entries.retain(|entry| retirement.state(entry) != RETIRED);
        entries = expiring(entries, within, now);
    }
    if args.output.is_json() {
        let domain = authority.trust_domain();
        let certificates: Vec<CertificateJson<'_>> = entries
            .iter()
            .map(|entry| CertificateJson::new(entry, &renewals, domain, retirement.state(entry)))
            .collect();
        let revoked = unknown
            .iter()
            .map(|row| revoked_as_json(row, &seen_by_receivers));
        let unrevoked = unrevoked.iter().map(|seen| unrevoked_as_json(seen));
        let unknown: Vec<_> = revoked.chain(unrevoked).collect();
        output::json(&serde_json::json!({
            "certificates": certificates,
            "unknown": unknown,
            "restored-at": renewals.copied_at,
        }))?;
        return seen_by_receivers.finish();
    }
    let rows = entries.iter().map(|entry| {
        [
            entry.profile.to_string(),
            entry.name.clone(),
            renewals.state_text(entry, retirement.state(entry)),
            output::date(entry.not_after),
            left(entry.not_after, now),
            renewals.origin(entry).to_owned(),
            renewals
                .last(entry)
                .map_or_else(|| "-".to_owned(), output::date),
            entry.serial.clone(),
            or_dash(attributes(entry).join(" ")),
        ]
    });
    // Of an unknown certificate the ledger has only the serial number.
    let unknown = unknown.iter().filter(|_| args.expiring.is_none());
    let rows = rows.chain(unknown.map(|row| {
        let reason = row.reason.and_then(reason).unwrap_or("no reason given");
        let state = format!("revoked ({reason})");
        let holder = seen_by_receivers.find(&row.serial);
        let holder = holder.map(|seen| (seen.role(), seen.certificate.identity.name.as_str()));
        let (role, name) = holder.unwrap_or(("unknown", "-"));
        let [role, name] = [role, name].map(str::to_owned);
        let dash = || "-".to_owned();
        let by = row.revoked_by.clone();
        [
            role,
            name,
            state,
            dash(),
            dash(),
            by,
            dash(),
            row.serial.clone(),
            dash(),
        ]
    }));
    let rows = rows.chain(unrevoked.iter().map(|seen| {
        let end = seen.certificate.not_after;
        let dash = || "-".to_owned();
        [
            seen.role().to_owned(),
            seen.certificate.identity.name.to_string(),
            seen.state().to_owned(),
            output::date(end),
            left(end, now),
            dash(),
            dash(),
            seen.serial(),
            dash(),
        ]
    }));
    output::table(
        [
            "ROLE",
            "NAME",
            "STATE",
            "UNTIL",
            "LEFT",
            "ISSUED BY",
            "LAST RENEWAL",
            "SERIAL",
            "TAGS",
        ],
        rows.collect(),
    )?;
    unknown_certificates::advise(&unrevoked, renewals.copied_at.is_some());
    seen_by_receivers.finish()
}

/// One certificate in `list --json`. The keys are stable; more may be added.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CertificateJson<'a> {
    role: &'a str,
    name: &'a str,
    identity: Option<String>,
    serial: &'a str,
    issuer: &'a str,
    state: &'a str,
    not_before: u64,
    not_after: u64,
    issued_at: u64,
    issued_by: &'a str,
    revoked_at: Option<u64>,
    revoked_reason: Option<&'static str>,
    revoked_by: Option<&'a str>,
    renews: Option<&'a str>,
    /// The issuer of the first certificate in the chain of renewals: a person or a join token.
    let_in_by: &'a str,
    /// Last renewal of the holder, in epoch seconds.
    last_renewal: Option<u64>,
    /// First use at `liz-ca`, in epoch seconds.
    first_seen: Option<u64>,
    key_sha256: &'a str,
    /// A node's tags; the tags and patterns of the hosts that a reader is limited to.
    attributes: Vec<String>,
}

impl<'a> CertificateJson<'a> {
    fn new(
        entry: &'a Entry,
        renewals: &'a RenewalHistory,
        domain: &lizmon_protocol::name::TrustDomain,
        state: &'a str,
    ) -> Self {
        let identity = match entry.profile {
            Profile::Leaf(role) => Some(format!("spiffe://{domain}/{role}/{}", entry.name)),
            Profile::Root | Profile::Issuing => None,
        };
        Self {
            role: entry.profile.as_str(),
            name: &entry.name,
            identity,
            serial: &entry.serial,
            issuer: &entry.issuer,
            state,
            not_before: entry.not_before,
            not_after: entry.not_after,
            issued_at: entry.issued_at,
            issued_by: &entry.issued_by,
            revoked_at: entry.revoked_at,
            revoked_reason: entry.revoked_reason.and_then(reason),
            revoked_by: entry.revoked_by.as_deref(),
            renews: entry.renews.as_deref(),
            let_in_by: renewals.origin(entry),
            last_renewal: renewals.last(entry),
            first_seen: renewals.first_uses.get(&entry.serial).copied(),
            key_sha256: &entry.key_sha256,
            attributes: attributes(entry),
        }
    }
}

fn revoked_as_json(row: &UnknownRevoked, seen: &UnknownCertificates) -> serde_json::Value {
    let seen = seen.find(&row.serial);
    serde_json::json!({
        "role": seen.map(UnknownCertificate::role),
        "name": seen.map(|seen| &seen.certificate.identity.name),
        "serial": row.serial,
        "issuer": row.issuer,
        "state": "revoked",
        "revoked-at": row.revoked_at,
        "revoked-reason": row.reason.and_then(reason),
        "revoked-by": row.revoked_by,
    })
}

fn unrevoked_as_json(seen: &UnknownCertificate) -> serde_json::Value {
    let certificate = &seen.certificate;
    serde_json::json!({
        "role": seen.role(),
        "name": certificate.identity.name,
        "identity": certificate.identity,
        "serial": seen.serial(),
        "state": "unknown",
        "of-this-ca": seen.of_this_ca,
        "issuer-name": certificate.issuer,
        "not-after": certificate.not_after,
        "first-seen": certificate.first_seen,
        "last-seen": certificate.last_seen,
        "seen-by": seen.seen_by,
    })
}

/// What its certificate says beside the identity.
fn attributes(entry: &Entry) -> Vec<String> {
    let items = inspect::inspect(entry.pem.as_bytes()).unwrap_or_default();
    let attributes = items.into_iter().find_map(|item| match item {
        Item::Certificate { attributes, .. } => Some(attributes),
        _ => None,
    });
    attributes.unwrap_or_default()
}

fn or_dash(text: String) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}

/// The newest certificate of each holder, in the ledger's order.
fn newest(entries: Vec<Entry>) -> Vec<Entry> {
    let last: HashMap<_, String> = entries
        .iter()
        .map(|entry| (holder(entry), entry.serial.clone()))
        .collect();
    let is_last = |entry: &Entry| last.get(&holder(entry)) == Some(&entry.serial);
    entries.into_iter().filter(is_last).collect()
}

/// The newest valid certificate of each holder, if it ends within that time. Those that have been
/// renewed, or that their holder will still renew automatically, are left out.
fn expiring(entries: Vec<Entry>, within: Duration, now: u64) -> Vec<Entry> {
    let mut newest: HashMap<(&'static str, String), u64> = HashMap::new();
    let valid = |entry: &&Entry| entry.state == CertState::Valid;
    for entry in entries.iter().filter(valid) {
        let end = newest.entry(holder(entry)).or_default();
        *end = entry.not_after.max(*end);
    }
    let limit = now.saturating_add(within.as_secs());
    entries
        .into_iter()
        .filter(|entry| valid(&entry) && entry.not_after <= limit)
        .filter(|entry| newest.get(&holder(entry)) == Some(&entry.not_after))
        .filter(|entry| !entry.renews_automatically() || now > renewed_by(entry))
        .collect()
}

/// When an automatic renewal has succeeded at the latest: it is due at two thirds of the lifetime
/// plus a twelfth, and may fail a few times.
fn renewed_by(entry: &Entry) -> u64 {
    let life = entry.not_after.saturating_sub(entry.not_before);
    entry.not_before + life / 6 * 5
}

/// No receiver accepts it, because the CA that signed it was replaced.
const RETIRED: &str = "retired";

/// Which CAs are retired.
struct Retirement {
    /// Serials of the CAs that are no longer trusted.
    retired: HashSet<String>,
    now: u64,
}

impl Retirement {
    fn new(generations: &[Generation], now: u64) -> Self {
        let gone = generations.iter().filter(|ca| !ca.phase.is_trusted());
        Self {
            retired: gone.map(|ca| ca.entry.serial.clone()).collect(),
            now,
        }
    }

    /// `valid`, `ended`, `revoked`, or `retired` if the certificate or its issuer was replaced.
    fn state(&self, entry: &Entry) -> &'static str {
        let is_retired = [&entry.serial, &entry.issuer]
            .iter()
            .any(|serial| self.retired.contains(*serial));
        match entry.state {
            CertState::Valid if is_retired => RETIRED,
            CertState::Valid if entry.not_after < self.now => "ended",
            state => state.as_str(),
        }
    }
}

/// The state with its reason: `revoked (key-compromise)`.
fn state_text(entry: &Entry, state: &str) -> String {
    match entry.revoked_reason.and_then(reason) {
        Some(reason) if entry.revoked_reason != Some(0) => format!("{state} ({reason})"),
        _ => state.to_owned(),
    }
}

fn reason(code: u8) -> Option<&'static str> {
    Reason::from_code(code).map(Reason::as_str)
}

/// What the ledger knows of a holder beyond a single certificate.
struct RenewalHistory {
    /// By serial: the issuer of the first certificate in the chain of renewals.
    origins: HashMap<String, String>,
    /// By role and name: the time of the newest renewal.
    newest: HashMap<(&'static str, String), u64>,
    /// By serial: first use at `liz-ca`.
    first_uses: HashMap<String, u64>,
    /// By role and name: the serial of the newest certificate.
    newest_serial: HashMap<(&'static str, String), String>,
    /// When the ledger was found to be a copy, which may lack later certificates.
    copied_at: Option<u64>,
}

impl RenewalHistory {
    /// From the whole ledger in its order: a certificate comes before its renewal.
    fn new(entries: &[Entry]) -> Self {
        let (mut newest, mut newest_serial) = (HashMap::new(), HashMap::new());
        for entry in entries {
            newest_serial.insert(holder(entry), entry.serial.clone());
            if entry.renews.is_some() {
                newest.insert(holder(entry), entry.issued_at);
            }
        }
        Self {
            origins: let_in::origins(entries),
            newest,
            first_uses: HashMap::new(),
            newest_serial,
            copied_at: None,
        }
    }

    /// `valid`, `valid (never seen)` for a renewal that was not used yet, `ended`, or
    /// `revoked (key-compromise)`.
    fn state_text(&self, entry: &Entry, state: &str) -> String {
        let is_unused = entry.renews.is_some() && !self.first_uses.contains_key(&entry.serial);
        // The holder of an ended certificate may have got another one that this copy lacks.
        let is_last = self.newest_serial.get(&holder(entry)) == Some(&entry.serial);
        let is_before_copying = self.copied_at.is_some_and(|at| entry.issued_at <= at);
        match state_text(entry, state) {
            state if state != "valid" && is_last && is_before_copying => {
                format!("{state}, later ones unknown")
            }
            state if state == "valid" && is_unused => "valid (never seen)".to_owned(),
            state => state,
        }
    }

    fn origin(&self, entry: &Entry) -> &str {
        let found = self.origins.get(&entry.serial);
        found.map_or("", String::as_str)
    }

    fn last(&self, entry: &Entry) -> Option<u64> {
        self.newest.get(&holder(entry)).copied()
    }
}

fn holder(entry: &Entry) -> (&'static str, String) {
    (entry.profile.as_str(), entry.name.clone())
}

fn left(end: u64, now: u64) -> String {
    const HOUR_SECS: u64 = 3600;
    match end.saturating_sub(now) {
        0 => "-".to_owned(),
        secs if secs < 2 * HOUR_SECS => format!("{}m", secs / 60),
        secs if secs < 48 * HOUR_SECS => format!("{}h", secs / HOUR_SECS),
        secs => format!("{}d", secs / (24 * HOUR_SECS)),
    }
}
