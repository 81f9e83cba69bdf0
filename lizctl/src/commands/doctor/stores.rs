//! What daemons keep: a monitor's spool, a receiver's data folder, a shared store.

use std::path::Path;

use lizmon_pki::error_chain::in_one_line;
use lizmon_receiver::store::backup;
use lizmon_receiver::store::redis::check::check as check_servers;
use lizmon_receiver::store::redis::config::RedisConfig;
use lizmon_receiver::store::redis::judge::Severity;

use super::report::{Report, Subject};
use super::target::Target;

/// A spool writes each second: after this it is not in use.
const SPOOL_LATE_SECS: u64 = 180;
/// A disk with less than this is nearly full.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Checks those that the target names.
pub(super) fn check(target: &Target, now: u64, report: &mut Report) {
    if let Some(spool) = &target.spool {
        check_spool(spool, target.spool_mib, now, report);
        check_space(spool, Subject::Spool, report);
    }
    if let Some(data) = &target.data {
        match &target.store {
            None => check_data(data, now, report),
            Some(_) => report.skipped(
                Subject::Data,
                format_args!("{} has no database: the store is shared", data.display()),
            ),
        }
        check_space(data, Subject::Data, report);
    }
    if let Some(store) = &target.store {
        check_store(store.clone(), report);
    }
}

fn check_spool(folder: &Path, limit_mib: u64, now: u64, report: &mut Report) {
    let shown = folder.display();
    let Ok(entries) = std::fs::read_dir(folder) else {
        // Reported with the other folders.
        return;
    };
    let (mut bytes, mut written, mut aside) = (0, 0, Vec::new());
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(found) = entry.metadata() else {
            continue;
        };
        if name.contains(".damaged-") || name.contains(".other-") {
            aside.push(name);
        } else if name.starts_with("spool.db") {
            bytes += found.len();
            let at = found
                .modified()
                .ok()
                .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            written = written.max(at.map_or(0, |at| at.as_secs()));
        }
    }
    let (mib, late) = (bytes >> 20, now.saturating_sub(written));
    if bytes == 0 {
        report.warning(
            Subject::Spool,
            "no-spool",
            format_args!("{shown} has no spool.db: no monitor has used it"),
            "start liz-monitor; is this the folder of its --spool?",
        );
    } else if late > SPOOL_LATE_SECS {
        report.warning(
            Subject::Spool,
            "spool-not-written",
            format_args!("{shown} was not written to for {late} s"),
            "is liz-monitor running? systemctl status lizmon-monitor",
        );
    } else if bytes > (limit_mib << 20) / 10 * 9 {
        report.warning(
            Subject::Spool,
            "spool-full",
            format_args!(
                "{shown} has {mib} MiB of {limit_mib}: soon the oldest records are dropped"
            ),
            "bring the receiver back, or give more: --spool-mib",
        );
    } else {
        report.ok(
            Subject::Spool,
            format_args!("{shown} has {mib} MiB of {limit_mib}, written {late} s ago"),
        );
    }
    if !aside.is_empty() {
        report.warning(
            Subject::Spool,
            "set-aside",
            format_args!(
                "{shown} has databases that were set aside: {}",
                aside.join(" ")
            ),
            "the monitor's log says what was lost; remove them when they are not needed",
        );
    }
}

fn check_data(folder: &Path, now: u64, report: &mut Report) {
    // Reported with the other folders.
    if !folder.exists() {
        return;
    }
    let shown = folder.display();
    let found = match backup::check(folder, now) {
        Ok(found) => found,
        Err(error) => {
            return report.failed(
                Subject::Data,
                "unreadable",
                in_one_line(&error),
                "has the receiver been started with this --data? Run this as its user, or as root",
            );
        }
    };
    for damage in &found.damage {
        report.failed(
            Subject::Data,
            "damaged",
            format_args!("{shown}: {damage}"),
            "restart the receiver, which keeps what can be read, or restore a backup: liz-receiver restore",
        );
    }
    for damage in &found.known {
        report.warning(
            Subject::Data,
            "was-damaged",
            format_args!("{shown}: lost earlier: {damage}"),
            "what monitors still keep comes again; check the disk, and restore a backup if more is needed",
        );
    }
    if !found.aside.is_empty() {
        report.warning(
            Subject::Data,
            "set-aside",
            format_args!(
                "{shown} has {} databases that were set aside",
                found.aside.len()
            ),
            "remove them when they are not needed: liz-receiver check names them",
        );
    }
    if found.damage.is_empty() {
        report.ok(
            Subject::Data,
            format_args!(
                "{shown}: {} hosts, {} intervals, whole",
                found.hosts, found.intervals
            ),
        );
    }
}

fn check_store(store: RedisConfig, report: &mut Report) {
    let url = store.url.to_string();
    let verdict = match check_servers(store) {
        Ok(verdict) => verdict,
        Err(error) => {
            return report.failed(
                Subject::Store,
                "unreachable",
                in_one_line(&error),
                format_args!("lizctl store check {url} says more"),
            );
        }
    };
    for found in &verdict.findings {
        let (finding, server) = (&found.finding, &found.address);
        let what = format!("{server}: {}; {}", finding.what, finding.why);
        match finding.severity {
            Severity::Refuse => report.failed(Subject::Store, finding.code, what, &finding.remedy),
            Severity::Warning => {
                report.warning(Subject::Store, finding.code, what, &finding.remedy)
            }
        }
    }
    if verdict.findings.is_empty() {
        report.ok(
            Subject::Store,
            format_args!("{url}: {} primaries, all is well", verdict.servers.len()),
        );
    }
}

#[cfg(unix)]
fn check_space(folder: &Path, subject: Subject, report: &mut Report) {
    let Ok(found) = rustix::fs::statvfs(folder) else {
        return;
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < FREE_BYTES_MIN {
        report.warning(
            subject,
            "disk-full",
            format_args!(
                "the disk of {} has only {} MiB left",
                folder.display(),
                free >> 20
            ),
            "make room: when it is full, samples are refused, and wait at their monitors",
        );
    }
}

#[cfg(not(unix))]
fn check_space(_: &Path, _: Subject, _: &mut Report) {}
