//! Files and folders: who may read and write them.

use std::path::{Path, PathBuf};

use super::report::{Report, Subject};
use super::target::Target;

/// Checks every file and folder that the target names.
pub(super) fn check(target: &Target, report: &mut Report) {
    let before = report.findings();
    let secrets: Vec<&PathBuf> = target.key.iter().chain(&target.secrets).collect();
    let public: Vec<&PathBuf> = [&target.cert, &target.ca, &target.crl]
        .into_iter()
        .flatten()
        .filter(|file| !secrets.contains(file))
        .collect();
    let mut folders: Vec<PathBuf> = Vec::new();
    for (file, is_secret) in secrets
        .iter()
        .map(|file| (*file, true))
        .chain(public.iter().map(|file| (*file, false)))
    {
        check_file(file, is_secret, target.ca_url.is_some(), report);
        let folder = parent(file);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    for folder in &folders {
        check_folder(folder, report);
    }
    for folder in target.data.iter().chain(&target.spool) {
        check_private_folder(folder, report);
    }
    let count = secrets.len() + public.len();
    if report.findings() == before && count > 0 {
        report.ok(
            Subject::Files,
            format_args!("{count} files can be read, and keys by their owner alone"),
        );
    }
}

fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn check_file(file: &Path, is_secret: bool, is_renewed: bool, report: &mut Report) {
    let shown = file.display();
    let found = match std::fs::symlink_metadata(file) {
        Ok(found) => found,
        Err(error) => return unreadable(file, &error, report),
    };
    if found.is_symlink() && is_renewed {
        report.warning(
            Subject::Files,
            "symbolic-link",
            format_args!(
                "{shown} is a symbolic link: a renewal replaces the link, not the file behind it"
            ),
            "name the file itself in the settings",
        );
    }
    // Of the file behind a link.
    match std::fs::metadata(file) {
        Err(error) => return unreadable(file, &error, report),
        Ok(found) if !found.is_file() => {
            return report.failed(
                Subject::Files,
                "not-a-file",
                format_args!("{shown} is not a file"),
                "name the file in the settings",
            );
        }
        Ok(found) => check_mode(file, &found, is_secret, report),
    }
    if let Err(error) = std::fs::File::open(file) {
        unreadable(file, &error, report);
    }
}

fn unreadable(file: &Path, error: &std::io::Error, report: &mut Report) {
    let shown = file.display();
    let (code, remedy) = match error.kind() {
        std::io::ErrorKind::NotFound => (
            "missing",
            "check the path; `lizctl join` or `lizctl issue-…` makes certificate and key",
        ),
        std::io::ErrorKind::PermissionDenied => (
            "unreadable",
            "run this as the daemon's user, or as root; if you did, give the file to that user with chown",
        ),
        _ => ("unreadable", "check the disk and the path"),
    };
    report.failed(
        Subject::Files,
        code,
        format_args!("{shown}: {error}"),
        remedy,
    );
}

#[cfg(unix)]
fn check_mode(file: &Path, found: &std::fs::Metadata, is_secret: bool, report: &mut Report) {
    use std::os::unix::fs::MetadataExt;
    let (shown, mode) = (file.display(), found.mode() & 0o777);
    if is_secret && mode & 0o077 != 0 {
        report.failed(
            Subject::Files,
            "key-not-private",
            format_args!("{shown} has mode {mode:04o}: others than its owner can read it"),
            format_args!("chmod 600 {shown}; if others are on this machine, replace the key: join again, or renew"),
        );
    } else if mode & 0o022 != 0 {
        report.failed(
            Subject::Files,
            "writable-by-others",
            format_args!("{shown} has mode {mode:04o}: others than its owner can change it"),
            format_args!("chmod go-w {shown}"),
        );
    }
}

/// A sticky folder, such as /tmp, lets nobody replace the files of others.
#[cfg(unix)]
fn check_folder(folder: &Path, report: &mut Report) {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::metadata(folder) else {
        return;
    };
    let (shown, mode) = (folder.display(), found.mode());
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        report.failed(
            Subject::Files,
            "folder-writable-by-others",
            format_args!(
                "{shown} has mode {:04o}: others can replace the files in it",
                mode & 0o7777
            ),
            format_args!("chmod go-w {shown}"),
        );
    }
}

#[cfg(unix)]
fn check_private_folder(folder: &Path, report: &mut Report) {
    use std::os::unix::fs::MetadataExt;
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Err(error) => unreadable(folder, &error, report),
        Ok(found) if found.mode() & 0o077 != 0 => report.warning(
            Subject::Files,
            "folder-not-private",
            format_args!(
                "{shown} has mode {:04o}: others can see what was measured",
                found.mode() & 0o7777
            ),
            format_args!("chmod 700 {shown}"),
        ),
        Ok(_) => (),
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata, _: bool, _: &mut Report) {}

#[cfg(not(unix))]
fn check_folder(_: &Path, _: &mut Report) {}

#[cfg(not(unix))]
fn check_private_folder(_: &Path, _: &mut Report) {}
