//! Verification of the audit log: its hash chain, and whether it matches the ledger.

use std::collections::HashSet;

use serde_json::Value;

use super::line::{AuditAction, AuditHead, AuditLine, HASH_BYTES};
use crate::ledger::record::{CertState, Entry, UnknownRevoked};
use crate::ledger::snapshot::LedgerSnapshot;

/// What is wrong with an audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Its content does not match its hash.
    #[error("line {0} was changed")]
    Changed(u64),
    /// The line does not follow the one before it.
    #[error("line {0} does not follow the line before it")]
    Unchained(u64),
    /// The line with this number.
    #[error("line {0} is missing")]
    Missing(u64),
    /// The line differs from the one that was kept elsewhere.
    #[error("line {0} differs from the head that was kept: the log was rewritten")]
    Rewritten(u64),
    /// A certificate that no line records.
    #[error(
        "no line records the certificate {0}: the end of the log is missing, or the ledger was changed"
    )]
    UnloggedCertificate(String),
    /// A line about a certificate that is not in the ledger.
    #[error("line {number} records the certificate {serial}, which is no longer in the ledger")]
    MissingCertificate {
        /// The line.
        number: u64,
        /// The certificate.
        serial: String,
    },
    /// A CA in a phase that no line records.
    #[error(
        "no line records the last rotation step of the CA {0}: the end of the log is missing, or the ledger was changed"
    )]
    UnloggedStep(String),
    /// A CRL that no line records.
    #[error(
        "no line records the newest CRL of {0}: the end of the log is missing, or the ledger was changed"
    )]
    UnloggedCrl(String),
    /// A join token whose creation or use no line records.
    #[error(
        "no line records the join token {0}: the end of the log is missing, or the ledger was changed"
    )]
    UnloggedToken(String),
    /// A certificate that is revoked in the log alone, or in the ledger alone.
    #[error("log and ledger disagree on whether the certificate {0} is revoked")]
    RevocationMismatch(String),
}

/// Checks the hash of every line, and compares the log with the ledger. Returns the newest line,
/// `None` if there is none.
pub(crate) fn verify(
    lines: &[AuditLine],
    ledger: &LedgerSnapshot,
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
    compare(lines, &ledger.entries)?;
    compare_unknown_revoked(lines, &ledger.unknown)?;
    compare_other_records(lines, ledger)?;
    Ok(lines.last().map(|line| AuditHead {
        number: line.number,
        hash: line.hash.clone(),
    }))
}

fn compare(lines: &[AuditLine], entries: &[Entry]) -> Result<(), AuditError> {
    let known: HashSet<&str> = entries.iter().map(|entry| entry.serial.as_str()).collect();
    let (mut recorded, mut revoked) = (HashSet::new(), HashSet::new());
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
            recorded.extend(serials);
        }
    }
    for entry in entries {
        if !recorded.contains(&entry.serial) {
            return Err(AuditError::UnloggedCertificate(entry.serial.clone()));
        }
        if revoked.contains(&entry.serial) != (entry.state == CertState::Revoked) {
            return Err(AuditError::RevocationMismatch(entry.serial.clone()));
        }
    }
    Ok(())
}

/// Every unknown revoked certificate has its line, and every such line its certificate.
fn compare_unknown_revoked(
    lines: &[AuditLine],
    unknown: &[UnknownRevoked],
) -> Result<(), AuditError> {
    let of_unknown = lines
        .iter()
        .filter(|line| line.what == AuditAction::RevokeUnknown.as_str());
    let recorded: HashSet<String> = of_unknown
        .filter_map(|line| serde_json::from_str::<Value>(&line.details).ok())
        .filter_map(|details| details["serial"].as_str().map(str::to_owned))
        .collect();
    let held: HashSet<String> = unknown.iter().map(|row| row.serial.clone()).collect();
    match recorded.symmetric_difference(&held).next() {
        None => Ok(()),
        Some(serial) => Err(AuditError::RevocationMismatch(serial.clone())),
    }
}

/// The records that are not about a certificate: rotation steps, CRLs and join tokens. The ledger
/// keeps the last state of each, so a log that was truncated after it is detected.
fn compare_other_records(lines: &[AuditLine], ledger: &LedgerSnapshot) -> Result<(), AuditError> {
    let (mut steps, mut crls, mut tokens) = (HashSet::new(), HashSet::new(), HashSet::new());
    for line in lines {
        let details: Value = serde_json::from_str(&line.details).unwrap_or_default();
        let text = |key: &str| details[key].as_str().unwrap_or_default().to_owned();
        let is = |action: AuditAction| line.what == action.as_str();
        if is(AuditAction::Init) || is(AuditAction::Rotate) {
            steps.insert(line.time);
        } else if is(AuditAction::SignCrl) || is(AuditAction::AdoptCrl) {
            crls.insert((text("issuer"), details["next-update"].as_u64()));
        } else if is(AuditAction::TokenMade) || is(AuditAction::TokenUsed) {
            tokens.insert((text("token"), is(AuditAction::TokenUsed)));
        }
    }
    for ca in &ledger.generations {
        if !steps.contains(&ca.since) {
            return Err(AuditError::UnloggedStep(ca.entry.name.clone()));
        }
    }
    for crl in &ledger.crls {
        if !crls.contains(&(crl.issuer.clone(), Some(crl.next_update))) {
            return Err(AuditError::UnloggedCrl(crl.issuer.clone()));
        }
    }
    for (short_id, used) in &ledger.tokens {
        let recorded = |used| tokens.contains(&(short_id.clone(), used));
        if !recorded(false) || (*used && !recorded(true)) {
            return Err(AuditError::UnloggedToken(short_id.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::audit::line::{AuditEvent, AuditHeadError};
    use crate::pki::Profile;

    fn log() -> Vec<AuditLine> {
        let events = [
            (AuditAction::Init, json!({"serial": ["aa", "bb"]})),
            (AuditAction::Issue, json!({"serial": "01", "name": "web1"})),
            (AuditAction::Issue, json!({"serial": "02", "name": "web2"})),
            (AuditAction::Revoke, json!({"serial": "01"})),
        ];
        let mut lines: Vec<AuditLine> = Vec::new();
        for (action, details) in events {
            let event = AuditEvent {
                action,
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

    fn ledger() -> LedgerSnapshot {
        LedgerSnapshot {
            entries: entries(),
            ..LedgerSnapshot::default()
        }
    }

    /// What is found after the log or the ledger was tampered with.
    #[track_caller]
    fn check(tamper: fn(&mut Vec<AuditLine>, &mut Vec<Entry>), expected: Result<(), AuditError>) {
        let (mut lines, mut ledger) = (log(), ledger());
        tamper(&mut lines, &mut ledger.entries);
        let found = verify(&lines, &ledger, None);
        assert_eq!(found.map(|_| ()), expected);
    }

    #[test]
    fn the_first_changed_line_is_named() {
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
        let head = verify(&lines, &ledger(), None).unwrap().unwrap();
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        let with = |lines: &[AuditLine], kept: &AuditHead| verify(lines, &ledger(), Some(kept));
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
