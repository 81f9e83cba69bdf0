//! `backup`, and a CA that is read-only.

use std::fs;

use crate::sandbox::{Sandbox, ran};

#[test]
fn a_backup_continues_crl_numbers() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1").done();
    sandbox.run("backup copy").done();
    sandbox.run("backup copy").failed(1, "copy already exists");
    sandbox.run("backup no/such/copy").failed(1, "no/such/copy");
    sandbox.run("revoke web1").done();
    let lists = |line: &str| {
        sandbox
            .run(line)
            .done()
            .stdout
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(lists("sign-crl")[1].starts_with("signed number 3 of lizmon issuing CA"));
    // The copy is a CA that knows nothing of what came after it.
    sandbox
        .run("--certs copy verify certs/nodes/web1.crt")
        .done();
    sandbox.run("--certs copy verify-audit").done();
    let signed = lists("--certs copy sign-crl --above 7");
    assert!(
        signed.iter().all(|line| line.contains("number 8 of")),
        "{signed:?}"
    );
    assert_eq!(signed.len(), 2);
    sandbox.run("--certs copy revoke web1").done();
    sandbox
        .run("--certs copy verify certs/nodes/web1.crt")
        .failed(1, "revoked");
    sandbox.run("sign-crl --above x").failed(2, "--above");
}

/// A backup on a stick, an image, a folder of another user, a full disk: who only looks needs to
/// write nothing.
#[cfg(unix)]
#[test]
fn a_ca_that_cannot_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65_534;
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-node web1").done();
    sandbox.run("backup copy").done();
    let modes = |folder: &str, folder_mode: u32, file_mode: u32| {
        for entry in fs::read_dir(sandbox.path(folder))
            .unwrap()
            .map(Result::unwrap)
        {
            let mode = if entry.file_type().unwrap().is_dir() {
                folder_mode
            } else if entry.path().extension().is_some_and(|name| name == "key") {
                0o600
            } else {
                file_mode
            };
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(
            sandbox.path(folder),
            fs::Permissions::from_mode(folder_mode),
        )
        .unwrap();
    };
    fs::set_permissions(sandbox.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Root may write everywhere, so the test runs lizctl as an unprivileged user.
    let is_root = rustix::process::geteuid().is_root();
    let files = if is_root { 0o444 } else { 0o400 };
    modes("certs", 0o555, files);
    modes("copy", 0o555, files);
    fs::set_permissions(
        sandbox.path("certs/nodes/web1.crt"),
        fs::Permissions::from_mode(0o444),
    )
    .unwrap();
    let run_unprivileged = |line: &str| {
        let mut command = sandbox.command();
        command.args(line.split_whitespace()).env("TMPDIR", "/tmp");
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        ran(command.output().unwrap())
    };
    for folder in ["certs", "copy"] {
        for line in [
            "list",
            "list --json",
            "verify-audit",
            "audit-log",
            "rotate issuing --status",
        ] {
            let looked = run_unprivileged(&format!("--certs {folder} {line}")).done();
            assert!(!looked.stdout.is_empty(), "{line}");
            assert!(
                looked.stderr.contains("nothing can be written in"),
                "{line}: {}",
                looked.stderr
            );
        }
    }
    let listed = run_unprivileged("list").stdout;
    assert!(
        listed.contains("web1") && listed.contains("valid"),
        "{listed}"
    );
    run_unprivileged("inspect certs/root.crt").done();
    run_unprivileged("verify certs/nodes/web1.crt").done();
    // Verbs that write are refused, and the ledger is not changed.
    for line in ["issue-node web2", "revoke web1"] {
        let refused = run_unprivileged(line);
        assert_eq!(refused.code, 1, "{line}: {refused:?}");
    }
    modes("certs", 0o755, 0o600);
    modes("copy", 0o755, 0o600);
    let listed = sandbox.run("list").done().stdout;
    assert!(
        !listed.contains("web2") && !listed.contains("revoked"),
        "{listed}"
    );
    // One whose folder nobody may look into is not one that is not there.
    if is_root {
        fs::set_permissions(sandbox.path("certs"), fs::Permissions::from_mode(0o700)).unwrap();
        run_unprivileged("list").failed(1, "Permission denied");
    }
}
