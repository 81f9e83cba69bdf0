//! CA keys under a passphrase or on removable storage, and PKCS #12 files.

use std::process::Command;

use crate::sandbox::{Sandbox, ran};

#[cfg(unix)]
#[test]
fn keys_under_a_passphrase() {
    let sandbox = Sandbox::new();
    sandbox.write("secret", "correct horse\n");
    sandbox
        .run("init-ca --passphrase-file secret")
        .failed(1, "chmod 600 secret");
    sandbox.chmod("secret", 0o600);
    sandbox.run("init-ca --encrypt").failed(2, "terminal");
    sandbox.run("init-ca --passphrase-file secret").done();
    sandbox.write("wrong", "wrong horse\n");
    sandbox.chmod("wrong", 0o600);
    sandbox
        .run("issue-node web1")
        .failed(1, "--passphrase-file");
    sandbox
        .run("issue-node web1 --passphrase-file wrong")
        .failed(1, "wrong passphrase for certs/issuing.key");
    sandbox
        .run("issue-node web1 --passphrase-file secret")
        .done();
    let mut command = sandbox.command();
    command.args(["issue-node", "web2"]);
    command.env("LIZMON_PASSPHRASE_FILE", "secret");
    assert!(command.output().unwrap().status.success());
    // Reading needs none.
    assert_eq!(sandbox.issued(), ["node web1", "node web2"]);
    let shown = sandbox.run("inspect certs/issuing.key").done().stdout;
    assert_eq!(shown, "encrypted private key: PBES2, scrypt, AES-256-CBC\n");
    sandbox.run("revoke web1").failed(1, "--passphrase-file");
    sandbox.run("--passphrase-file secret revoke web1").done();

    // OpenSSL opens the keys with the same passphrase; they match the certificates.
    for key in ["root", "issuing"] {
        let public = |args: &[&str]| {
            let output = Command::new("openssl")
                .args(args)
                .current_dir(sandbox.dir.path())
                .output();
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let file = format!("certs/{key}.key");
        let of_key = public(&["pkey", "-in", &file, "-passin", "file:secret", "-pubout"]);
        let certificate = format!("certs/{key}.crt");
        let of_certificate = public(&["x509", "-in", &certificate, "-noout", "-pubkey"]);
        assert_eq!(of_key, of_certificate);
        // What OpenSSL encrypted, with either derivation, is opened here.
        for derivation in [&["-scrypt"][..], &["-iter", "1000"]] {
            let words = [
                "pkcs8",
                "-topk8",
                "-v2",
                "aes-256-cbc",
                "-in",
                &file,
                "-out",
                "new.key",
            ];
            let passes = ["-passin", "file:secret", "-passout", "pass:correct horse"];
            public(&[&words, derivation, &passes].concat());
            sandbox.chmod("new.key", 0o600);
            std::fs::rename(sandbox.path("new.key"), sandbox.path(&file)).unwrap();
            sandbox
                .run("issue-node web3 --passphrase-file secret")
                .done();
        }
        let locked = Command::new("openssl")
            .args(["pkey", "-in", &file, "-passin", "file:wrong", "-noout"])
            .current_dir(sandbox.dir.path())
            .output();
        assert!(!locked.unwrap().status.success());
    }
}

#[test]
fn a_root_key_on_removable_storage() {
    let sandbox = Sandbox::new();
    sandbox
        .run("init-ca --offline-root stick")
        .failed(1, "stick");
    std::fs::create_dir(sandbox.path("stick")).unwrap();
    let ran = sandbox.run("init-ca --offline-root stick").done();
    assert!(ran.stdout.contains("stick/root.key"), "{ran:?}");
    assert!(!sandbox.path("certs/root.key").exists());
    sandbox.run("issue-node web1").done();
    let serial = sandbox.json("list --json")["certificates"][1]["serial"].clone();
    let line = format!("revoke --serial {}", serial.as_str().unwrap());
    sandbox.run(&line).failed(1, "--root-key");
    sandbox
        .run(&format!("{line} --root-key stick/root.key"))
        .done();
    sandbox
        .run("verify certs/nodes/web1.crt")
        .failed(1, "revoked");
}

#[cfg(unix)]
#[test]
fn keys_that_others_can_read_are_refused() {
    let sandbox = Sandbox::with_ca();
    sandbox.chmod("certs/issuing.key", 0o640);
    sandbox
        .run("issue-node web1")
        .failed(1, "chmod 600 certs/issuing.key");
    sandbox.run("list").failed(1, "chmod 600 certs/issuing.key");
    sandbox.chmod("certs/issuing.key", 0o600);
    sandbox.run("issue-node web1").done();
}

#[cfg(unix)]
#[test]
fn a_browser_gets_key_and_chain_in_one_file() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::with_ca();
    sandbox.write("secret", "correct horse\n");
    sandbox.chmod("secret", 0o600);
    let issue = "issue-reader alice --p12 alice.p12";
    // Nothing is issued before there is a passphrase.
    sandbox.run(issue).failed(2, "terminal");
    sandbox
        .run("issue-reader alice --p12-passphrase-file secret")
        .failed(2, "--p12");
    sandbox
        .run(&format!("{issue} --csr x.csr"))
        .failed(2, "--csr");
    assert!(sandbox.issued().is_empty());
    let output = sandbox
        .run(&format!("{issue} --p12-passphrase-file secret"))
        .done();
    assert!(output.stdout.contains("alice.p12"), "{output:?}");
    let mode = std::fs::metadata(sandbox.path("alice.p12"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        command
            .args(args.split_whitespace())
            .current_dir(sandbox.dir.path());
        ran(command.output().unwrap())
    };
    let open = "pkcs12 -in alice.p12 -passin file:secret -nodes";
    let all = openssl(&format!("{open} -out all.pem")).done();
    assert!(!all.stderr.contains("legacy"), "{all:?}");
    let pem = std::fs::read_to_string(sandbox.path("all.pem")).unwrap();
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(pem.matches("BEGIN PRIVATE KEY").count(), 1);
    let public = openssl("pkey -in all.pem -pubout").done().stdout;
    assert_eq!(
        openssl("x509 -in certs/readers/alice.crt -noout -pubkey")
            .done()
            .stdout,
        public
    );
    let leaf = openssl(&format!("{open} -clcerts -nokeys")).done().stdout;
    assert!(leaf.contains("CN = alice"), "{leaf}");
    sandbox.chmod("secret", 0o600);
    sandbox.write("wrong", "wrong\n");
    assert_ne!(
        openssl("pkcs12 -in alice.p12 -passin file:wrong -nodes").code,
        0
    );
}
