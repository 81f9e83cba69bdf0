//! The audit log: a line for every deed of the CA, each bound to the one before by its hash.
//!
//! A line is written in the transaction of its deed, so there is neither without the other. Its hash is SHA-256 over
//!
//! ```text
//! "lizmon-audit-1" number time len(who) who len(what) what len(details) details previous
//! ```
//!
//! with number and time as 8 bytes and each length as 4, all big-endian; `details` is the JSON text as it stands in
//! the ledger, `previous` the 32 bytes of the line before, zeros before the first. A chain cannot show by itself that
//! its end was cut off: for that it is compared with what else the ledger holds, and with a [`AuditHead`] that was kept elsewhere.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use crate::error::Error;
use crate::ledger::{CertState, CrlRecord, Entry, Generation, LedgerTx, UnknownRevoked};

/// What is done. No secret is ever in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// A CA was made.
    Init,
    /// A certificate was issued by hand.
    Issue,
    /// A certificate was issued to the holder of another.
    Renew,
    /// A certificate was revoked.
    Revoke,
    /// A certificate was revoked that the ledger does not know.
    RevokeUnknown,
    /// A revocation list was signed.
    SignCrl,
    /// A revocation list was found that was signed by another copy of this ledger.
    AdoptCrl,
    /// A CA of another generation was made, taken into use or out of it.
    Rotate,
    /// A join token was made.
    TokenMade,
    /// A certificate was issued for a join token.
    TokenUsed,
    /// A join token that was not used yet was withdrawn.
    TokenWithdrawn,
}

impl AuditAction {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
            Self::RevokeUnknown => "revoke-unknown",
            Self::SignCrl => "sign-crl",
            Self::AdoptCrl => "adopt-crl",
            Self::Rotate => "rotate",
            Self::TokenMade => "token-made",
            Self::TokenUsed => "token-used",
            Self::TokenWithdrawn => "token-withdrawn",
        }
    }
}

/// A line before it is written.
#[derive(Debug, Clone)]
pub struct AuditEvent<'a> {
    /// What was done.
    pub deed: AuditAction,
    /// By whom: a person, or the identity of a certificate.
    pub who: &'a str,
    /// A JSON object. What it says of a certificate stands under `serial`.
    pub details: Value,
}

/// A line as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// From 1, without a gap.
    pub number: u64,
    /// Epoch seconds.
    pub time: u64,
    /// By whom.
    pub who: String,
    /// What was done.
    pub what: String,
    /// A JSON object, byte for byte as it was hashed.
    pub details: String,
    /// The hash of the line before.
    pub previous: Vec<u8>,
    /// This line's.
    pub hash: Vec<u8>,
}

impl AuditLine {
    /// The line that follows `last`.
    pub(crate) fn after(last: Option<&Self>, event: &AuditEvent<'_>, now: u64) -> Self {
        let mut line = Self {
            number: last.map_or(1, |last| last.number + 1),
            time: now,
            who: event.who.to_owned(),
            what: event.deed.as_str().to_owned(),
            details: event.details.to_string(),
            previous: last.map_or_else(|| vec![0; HASH_BYTES], |last| last.hash.clone()),
            hash: Vec::new(),
        };
        line.hash = line.computed_hash().to_vec();
        line
    }

    fn computed_hash(&self) -> [u8; HASH_BYTES] {
        let mut context = Context::new(&SHA256);
        context.update(b"lizmon-audit-1");
        context.update(&self.number.to_be_bytes());
        context.update(&self.time.to_be_bytes());
        for text in [&self.who, &self.what, &self.details] {
            // SQLite holds no text of 4 GiB.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            context.update(&length.to_be_bytes());
            context.update(text.as_bytes());
        }
        context.update(&self.previous);
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

const HASH_BYTES: usize = 32;

/// A line's number and hash: who keeps one elsewhere can tell later that nothing up to it was changed or cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// The line.
    pub number: u64,
    /// Its hash.
    pub hash: Vec<u8>,
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex::encode(&self.hash))
    }
}

/// Text that is no [`AuditHead`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not NUMBER:HASH as verify-audit prints it")]
pub struct AuditHeadError;

impl FromStr for AuditHead {
    type Err = AuditHeadError;

    fn from_str(text: &str) -> Result<Self, AuditHeadError> {
        let (number, hash) = text.split_once(':').ok_or(AuditHeadError)?;
        let hash = hex::decode(hash).map_err(|_| AuditHeadError)?;
        if hash.len() != HASH_BYTES {
            return Err(AuditHeadError);
        }
        let number = number.parse().map_err(|_| AuditHeadError)?;
        Ok(Self { number, hash })
    }
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Something in the line is not what was hashed.
    #[error("line {0} is not as it was written")]
    Changed(u64),
    /// The line does not follow the one before it.
    #[error("line {0} does not follow the line before it")]
    Unchained(u64),
    /// A number without a line.
    #[error("line {0} is missing")]
    Missing(u64),
    /// The line that was kept elsewhere is another.
    #[error("line {0} is another than the one that was kept: the log was written anew")]
    Rewritten(u64),
    /// A certificate that no line tells of.
    #[error(
        "no line tells of the certificate {0}: the end of the log is missing, or the ledger was written to"
    )]
    UnloggedCertificate(String),
    /// A line about a certificate that is not in the ledger.
    #[error("line {number} tells of the certificate {serial}, which is not in the ledger any more")]
    MissingCertificate {
        /// The line.
        number: u64,
        /// The certificate.
        serial: String,
    },
    /// A CA in a phase that no line tells of.
    #[error(
        "no line tells of the last step of the CA {0}: the end of the log is missing, or the ledger was written to"
    )]
    UnloggedStep(String),
    /// A revocation list that no line tells of.
    #[error(
        "no line tells of the newest revocation list of {0}: the end of the log is missing, or the ledger was written to"
    )]
    UnloggedCrl(String),
    /// A join token that no line tells of, or whose use none does.
    #[error(
        "no line tells of the join token {0}: the end of the log is missing, or the ledger was written to"
    )]
    UnloggedToken(String),
    /// A revocation that the certificates know nothing of, or the other way round.
    #[error("log and ledger disagree about whether the certificate {0} is revoked")]
    RevocationMismatch(String),
}

/// What the ledger holds that lines have to tell of.
#[derive(Debug, Clone, Default)]
pub(crate) struct LedgerSnapshot {
    pub(crate) entries: Vec<Entry>,
    pub(crate) generations: Vec<Generation>,
    pub(crate) crls: Vec<CrlRecord>,
    /// Marks of join tokens, and whether each was used.
    pub(crate) tokens: Vec<(String, bool)>,
    pub(crate) unknown: Vec<UnknownRevoked>,
}

/// Checks every line, and that the lines and the ledger tell the same story. The newest line is returned, `None` if
/// there is none.
pub(crate) fn verify(
    lines: &[AuditLine],
    holdings: &LedgerSnapshot,
    kept: Option<&AuditHead>,
) -> Result<Option<AuditHead>, AuditError> {
    let mut previous = vec![0; HASH_BYTES];
    for (expected, line) in (1..).zip(lines) {
        if line.number != expected {
            return Err(AuditError::Missing(expected));
        }
        if line.previous != previous {
            return Err(AuditError::Unchained(line.number));
        }
        if line.hash != line.computed_hash() {
            return Err(AuditError::Changed(line.number));
        }
        previous.clone_from(&line.hash);
    }
    if let Some(kept) = kept {
        match lines.iter().find(|line| line.number == kept.number) {
            None => return Err(AuditError::Missing(lines.len() as u64 + 1)),
            Some(line) if line.hash != kept.hash => return Err(AuditError::Rewritten(kept.number)),
            Some(_) => {}
        }
    }
    compare(lines, &holdings.entries)?;
    compare_unknown_revoked(lines, &holdings.unknown)?;
    compare_other_records(lines, holdings)?;
    Ok(lines.last().map(|line| AuditHead {
        number: line.number,
        hash: line.hash.clone(),
    }))
}

fn compare(lines: &[AuditLine], entries: &[Entry]) -> Result<(), AuditError> {
    let known: HashSet<&str> = entries.iter().map(|entry| entry.serial.as_str()).collect();
    let (mut told, mut revoked) = (HashSet::new(), HashSet::new());
    for line in lines
        .iter()
        .filter(|line| line.what != AuditAction::RevokeUnknown.as_str())
    {
        let details: Value = serde_json::from_str(&line.details).unwrap_or_default();
        let serials = match &details["serial"] {
            Value::String(serial) => vec![serial.clone()],
            Value::Array(all) => all
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        if let Some(lost) = serials
            .iter()
            .find(|serial| !known.contains(serial.as_str()))
        {
            return Err(AuditError::MissingCertificate {
                number: line.number,
                serial: lost.clone(),
            });
        }
        if line.what == AuditAction::Revoke.as_str() {
            revoked.extend(serials);
        } else {
            told.extend(serials);
        }
    }
    for entry in entries {
        if !told.contains(&entry.serial) {
            return Err(AuditError::UnloggedCertificate(entry.serial.clone()));
        }
        if revoked.contains(&entry.serial) != (entry.state == CertState::Revoked) {
            return Err(AuditError::RevocationMismatch(entry.serial.clone()));
        }
    }
    Ok(())
}

/// What was revoked without being known has its line, and what such a line tells of is still revoked.
fn compare_unknown_revoked(
    lines: &[AuditLine],
    unknown: &[UnknownRevoked],
) -> Result<(), AuditError> {
    let of_unknown = lines
        .iter()
        .filter(|line| line.what == AuditAction::RevokeUnknown.as_str());
    let told: HashSet<String> = of_unknown
        .filter_map(|line| serde_json::from_str::<Value>(&line.details).ok())
        .filter_map(|details| details["serial"].as_str().map(str::to_owned))
        .collect();
    let held: HashSet<String> = unknown.iter().map(|row| row.serial.clone()).collect();
    match told.symmetric_difference(&held).next() {
        None => Ok(()),
        Some(serial) => Err(AuditError::RevocationMismatch(serial.clone())),
    }
}

/// What a certificate's lines do not tell of: steps of a rotation, revocation lists, join tokens. Of each the ledger keeps the
/// last state, so this finds a log that was cut off behind it.
fn compare_other_records(lines: &[AuditLine], holdings: &LedgerSnapshot) -> Result<(), AuditError> {
    let (mut steps, mut lists, mut tokens) = (HashSet::new(), HashSet::new(), HashSet::new());
    for line in lines {
        let details: Value = serde_json::from_str(&line.details).unwrap_or_default();
        let text = |key: &str| details[key].as_str().unwrap_or_default().to_owned();
        let is = |deed: AuditAction| line.what == deed.as_str();
        if is(AuditAction::Init) || is(AuditAction::Rotate) {
            steps.insert(line.time);
        } else if is(AuditAction::SignCrl) || is(AuditAction::AdoptCrl) {
            lists.insert((text("issuer"), details["next-update"].as_u64()));
        } else if is(AuditAction::TokenMade) || is(AuditAction::TokenUsed) {
            tokens.insert((text("token"), is(AuditAction::TokenUsed)));
        }
    }
    for ca in &holdings.generations {
        if !steps.contains(&ca.since) {
            return Err(AuditError::UnloggedStep(ca.entry.name.clone()));
        }
    }
    for crl in &holdings.crls {
        if !lists.contains(&(crl.issuer.clone(), Some(crl.next_update))) {
            return Err(AuditError::UnloggedCrl(crl.issuer.clone()));
        }
    }
    for (short_id, used) in &holdings.tokens {
        let told = |used| tokens.contains(&(short_id.clone(), used));
        if !told(false) || (*used && !told(true)) {
            return Err(AuditError::UnloggedToken(short_id.clone()));
        }
    }
    Ok(())
}

impl LedgerTx<'_> {
    /// Writes a line in this transaction.
    pub(crate) fn record(&self, event: &AuditEvent<'_>, now: u64) -> Result<(), Error> {
        let last = self.last_line()?;
        self.append(&AuditLine::after(last.as_ref(), event, now))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::profile::Profile;

    fn log() -> Vec<AuditLine> {
        let events = [
            (AuditAction::Init, json!({"serial": ["aa", "bb"]})),
            (AuditAction::Issue, json!({"serial": "01", "name": "web1"})),
            (AuditAction::Issue, json!({"serial": "02", "name": "web2"})),
            (AuditAction::Revoke, json!({"serial": "01"})),
        ];
        let mut lines: Vec<AuditLine> = Vec::new();
        for (deed, details) in events {
            let event = AuditEvent {
                deed,
                who: "test",
                details,
            };
            lines.push(AuditLine::after(lines.last(), &event, 7));
        }
        lines
    }

    fn entries() -> Vec<Entry> {
        let entry = |serial: &str, state| Entry {
            state,
            ..Entry::for_test(serial, Profile::Root)
        };
        vec![
            entry("aa", CertState::Valid),
            entry("bb", CertState::Valid),
            entry("01", CertState::Revoked),
            entry("02", CertState::Valid),
        ]
    }

    fn holdings() -> LedgerSnapshot {
        LedgerSnapshot {
            entries: entries(),
            ..LedgerSnapshot::default()
        }
    }

    /// What is found after the log or the ledger was tampered with.
    #[track_caller]
    fn check(tamper: fn(&mut Vec<AuditLine>, &mut Vec<Entry>), expected: Result<(), AuditError>) {
        let (mut lines, mut holdings) = (log(), holdings());
        tamper(&mut lines, &mut holdings.entries);
        let found = verify(&lines, &holdings, None);
        assert_eq!(found.map(|_| ()), expected);
    }

    #[test]
    fn the_first_line_that_was_touched_is_named() {
        check(|_, _| (), Ok(()));
        check(|lines, _| lines[1].time += 1, Err(AuditError::Changed(2)));
        check(
            |lines, _| lines[1].who.push('x'),
            Err(AuditError::Changed(2)),
        );
        check(
            |lines, _| lines[2].what.clear(),
            Err(AuditError::Changed(3)),
        );
        check(
            |lines, _| lines[0].details.push(' '),
            Err(AuditError::Changed(1)),
        );
        check(
            |lines, _| lines[3].hash[0] ^= 1,
            Err(AuditError::Changed(4)),
        );
        check(
            |lines, _| lines[3].previous[0] ^= 1,
            Err(AuditError::Unchained(4)),
        );
        check(
            |lines, _| drop(lines.remove(0)),
            Err(AuditError::Missing(1)),
        );
        check(
            |lines, _| drop(lines.remove(2)),
            Err(AuditError::Missing(3)),
        );
        // A line whose hash was made to fit is found by the next.
        check(
            |lines, _| {
                lines[1].who.push('x');
                lines[1].hash = lines[1].computed_hash().to_vec();
            },
            Err(AuditError::Unchained(3)),
        );
        // What moves from one field into the next is another line.
        check(
            |lines, _| {
                lines[1].who = "tes".into();
                lines[1].what = "tissue".into();
            },
            Err(AuditError::Changed(2)),
        );
    }

    #[test]
    fn log_and_ledger_tell_the_same_story() {
        check(
            |lines, _| drop(lines.pop()),
            Err(AuditError::RevocationMismatch("01".into())),
        );
        check(
            |lines, _| lines.truncate(2),
            Err(AuditError::RevocationMismatch("01".into())),
        );
        check(
            |lines, _| lines.truncate(1),
            Err(AuditError::UnloggedCertificate("01".into())),
        );
        check(
            |lines, _| lines.clear(),
            Err(AuditError::UnloggedCertificate("aa".into())),
        );
        check(
            |_, entries| entries[2].state = CertState::Valid,
            Err(AuditError::RevocationMismatch("01".into())),
        );
        check(
            |_, entries| entries.push(Entry::for_test("03", Profile::Root)),
            Err(AuditError::UnloggedCertificate("03".into())),
        );
        check(
            |_, entries| drop(entries.pop()),
            Err(AuditError::MissingCertificate {
                number: 3,
                serial: "02".into(),
            }),
        );
    }

    #[test]
    fn a_head_kept_elsewhere_shows_a_log_written_anew() {
        let lines = log();
        let head = verify(&lines, &holdings(), None).unwrap().unwrap();
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        let with = |lines: &[AuditLine], kept: &AuditHead| verify(lines, &holdings(), Some(kept));
        assert!(with(&lines, &head).is_ok());
        let earlier = AuditHead {
            number: 2,
            hash: lines[1].hash.clone(),
        };
        assert!(with(&lines, &earlier).is_ok());
        let other = AuditHead {
            number: 2,
            hash: lines[2].hash.clone(),
        };
        assert_eq!(with(&lines, &other), Err(AuditError::Rewritten(2)));
        let later = AuditHead { number: 9, ..head };
        assert_eq!(with(&lines, &later), Err(AuditError::Missing(5)));
        for bad in ["", "1", "1:", ":00", "x:00", "1:zz"] {
            assert_eq!(bad.parse::<AuditHead>(), Err(AuditHeadError), "{bad}");
        }
    }
}
