//! Profiles: who writes them, which one is used, and what is said of wrong ones.

use std::fs;

use serde_json::json;

use crate::sandbox::Sandbox;

const CONFIG: &str = "config/lizmon/config.toml";

#[test]
fn a_reader_gets_a_profile_and_the_first_is_the_default() {
    let sandbox = Sandbox::with_ca();
    sandbox
        .run("issue-receiver rx1 --san rx1.example --san 192.0.2.7")
        .done();
    let said = sandbox.run("issue-reader ada").done().stderr;
    assert!(said.contains("the default one"), "{said}");
    assert!(said.contains("https://rx1.example:8443"), "{said}");
    let file = fs::read(sandbox.path(CONFIG)).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(sandbox.path(CONFIG)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
    // Not again for a renewed certificate.
    let said = sandbox.run("issue-reader ada").done().stderr;
    assert!(said.contains("stays as it is"), "{said}");
    assert_eq!(fs::read(sandbox.path(CONFIG)).unwrap(), file);
    sandbox
        .run("issue-reader bob --receiver https://rx2.example:1")
        .done();
    let shown = |line: &str| {
        let shown = sandbox.json(line);
        let parts = ["receiver", "cert", "key", "ca"].map(|part| shown[part]["value"].clone());
        parts.map(|part| part.as_str().unwrap().to_owned())
    };
    let folder = sandbox.dir.path().canonicalize().unwrap();
    let folder = folder.to_string_lossy();
    let expected = |name: &str, receiver: &str| {
        [
            receiver.to_owned(),
            format!("{folder}/certs/readers/{name}.crt"),
            format!("{folder}/certs/readers/{name}.key"),
            format!("{folder}/certs/root.crt"),
        ]
    };
    let (ada, bob) = (
        expected("ada", "https://rx1.example:8443"),
        expected("bob", "https://rx2.example:1"),
    );
    assert_eq!(shown("profile show --json"), ada);
    assert_eq!(shown("profile show --json --profile bob"), bob);
    sandbox.run("profile use bob").done();
    assert_eq!(shown("profile show --json"), bob);
    let listed = sandbox.json("profile list --json");
    assert_eq!(listed["profiles"][0]["default"], json!(false), "{listed}");
    assert_eq!(listed["profiles"][1]["name"], json!("bob"), "{listed}");
    // The files of the profile are read, and its receiver is asked.
    fs::write(
        sandbox.path(CONFIG),
        fs::read_to_string(sandbox.path(CONFIG))
            .unwrap()
            .replace("https://rx2.example:1", "https://127.0.0.1:1"),
    )
    .unwrap();
    sandbox.run("hosts").failed(4, "https://127.0.0.1:1");
    // The key elsewhere is nothing to use; the files of a folder are used from there.
    sandbox.run("issue-reader eve --out eve").done();
    let listed = sandbox.run("profile list --certs eve").done().stdout;
    assert!(listed.contains("(eve/profile.toml)"), "{listed}");
    assert!(!listed.contains("certs/readers/eve"), "{listed}");
}

#[test]
fn flags_come_first_then_variables_then_one_profile() {
    let sandbox = Sandbox::with_ca();
    sandbox.write(
        "certs/profile.toml",
        "receiver = \"https://local\"\ncert = \"l.crt\"\nkey = \"l.key\"\nca = \"l-root.crt\"\n",
    );
    let part = |line: &str, variable: Option<(&str, &str)>, part: &str| {
        let mut command = sandbox.command();
        command.args(line.split(' ')).envs(variable);
        let shown = crate::sandbox::ran(command.output().unwrap()).done().stdout;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[part]["value"].as_str().unwrap().to_owned()
    };
    let show = "profile show --json";
    assert_eq!(part(show, None, "receiver"), "https://local");
    assert_eq!(part(show, None, "cert"), "certs/l.crt");
    fs::create_dir_all(sandbox.path("config/lizmon")).unwrap();
    // One that lacks something steps back; a complete one comes first.
    sandbox.write(CONFIG, "default = \"h\"\n[profiles.h]\ncert = \"h.crt\"\n");
    assert_eq!(part(show, None, "cert"), "certs/l.crt");
    sandbox.write(
        CONFIG,
        "default = \"h\"\n[profiles.h]\nreceiver = \"https://home\"\ncert = \"h.crt\"\nkey = \"h.key\"\nca = \"/h-root.crt\"\n",
    );
    assert_eq!(part(show, None, "receiver"), "https://home");
    assert!(part(show, None, "cert").ends_with("config/lizmon/h.crt"));
    assert_eq!(part(show, None, "ca"), "/h-root.crt");
    let variable = Some(("LIZMON_RECEIVER", "https://variable"));
    assert_eq!(part(show, variable, "receiver"), "https://variable");
    assert_eq!(part(show, variable, "ca"), "/h-root.crt");
    let typed = format!("{show} --receiver https://typed");
    assert_eq!(part(&typed, variable, "receiver"), "https://typed");
    // A profile that is named on the command line is meant as a whole, whatever was set for daily use.
    let typed = format!("{show} --profile h");
    assert_eq!(part(&typed, variable, "receiver"), "https://home");
    let typed = format!("{typed} --receiver https://typed");
    assert_eq!(part(&typed, variable, "receiver"), "https://typed");
    // An empty variable is none.
    let empty = Some(("LIZMON_PROFILE", ""));
    assert_eq!(part(show, empty, "receiver"), "https://home");
    // A certificate is not used with the key of another.
    let lone = sandbox.run("hosts --cert a.crt");
    lone.failed(2, "--key is missing");
}

#[test]
fn a_wrong_file_is_told_with_line_and_key() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("config/lizmon")).unwrap();
    sandbox.run("hosts").failed(2, "`lizctl up`");
    sandbox
        .run("hosts --profile a")
        .failed(2, "there is no profile \"a\"");
    sandbox.write(
        CONFIG,
        "[profiles.a]\nreceiver = \"https://r1\"\nkeys = \"k\"\n",
    );
    for line in [
        "hosts",
        "profile list",
        "profile show",
        "profile use a",
        "hosts --profile a",
    ] {
        sandbox
            .run(line)
            .failed(2, "config.toml:3: there is no key \"keys\"");
    }
    sandbox.write(
        CONFIG,
        "[profiles.a]\nreceiver = \"https://r1\"\ncert = \"c\"\nca = \"a\"\n",
    );
    sandbox
        .run("hosts --profile a")
        .failed(2, "--key is missing");
    sandbox.run("hosts --profile b").failed(2, "there are a");
    sandbox.run("profile use b").failed(2, "there are a");
    fs::remove_dir_all(sandbox.path("config")).unwrap();
    sandbox.run("profile use a").failed(2, "there are none");
}

/// Verbs that speak to receivers as an operator, and work without one.
#[test]
fn an_operators_profile_is_used_where_it_fits() {
    // Port 1 of this machine: nobody listens there.
    const RECEIVER: &str = "https://127.0.0.1:1";
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-operator olga").done();
    sandbox.run("issue-reader ada").done();
    let verbs = ["revoke web1", "sign-crl", "list"];
    let profile = |name: &str, certs: &str, files: &str| {
        let certs = sandbox.path(certs);
        let certs = certs.display();
        let files = format!("{certs}/{files}");
        format!(
            "[profiles.{name}]\nreceiver = \"{RECEIVER}\"\ncert = \"{files}.crt\"\nkey = \"{files}.key\"\nca = \"{certs}/root.crt\"\n"
        )
    };
    let profiles = |default: &str| {
        let (olga, ada) = (
            profile("olga", "certs", "operators/olga"),
            profile("ada", "certs", "readers/ada"),
        );
        let other = profile("other", "other", "operators/eve");
        sandbox.write(
            CONFIG,
            &format!("default = \"{default}\"\n{olga}{ada}{other}"),
        );
    };
    sandbox.run("init-ca --certs other").done();
    sandbox.run("issue-operator eve --certs other").done();
    let check = |line: &str, code: i32, culprit: &str| {
        sandbox.run("issue-node web1").done();
        let ran = sandbox.run(line);
        assert_eq!(ran.code, code, "{line}: {ran:?}");
        assert!(ran.stderr.contains(culprit), "{line}: {ran:?}");
    };
    for verb in verbs {
        profiles("olga");
        check(verb, 4, RECEIVER);
        check(&format!("{verb} --receiver {RECEIVER}"), 4, RECEIVER);
        // A reader's, or another CA's: nobody is asked, and nothing fails.
        for default in ["ada", "other"] {
            profiles(default);
            check(verb, 0, "");
        }
        // Who names it means it.
        check(&format!("{verb} --profile olga"), 4, RECEIVER);
        let half = format!("{verb} --profile olga --cert x.crt");
        check(&half, 2, "--key is missing");
        // A broken file stops nobody who did not ask for it.
        sandbox.write(CONFIG, "default = 5\n");
        check(verb, 0, "");
        check(&format!("{verb} --profile olga"), 2, "config.toml:1");
        let alone = format!("{verb} --receiver {RECEIVER}");
        check(&alone, 2, "config.toml:1");
    }
    fs::remove_file(sandbox.path(CONFIG)).unwrap();
    for verb in verbs {
        let alone = format!("{verb} --receiver {RECEIVER}");
        check(&alone, 2, "--cert is missing");
    }
}

#[test]
fn a_certificate_is_renewed_at_the_profiles_ca() {
    let sandbox = Sandbox::with_ca();
    sandbox.run("issue-reader ada").done();
    sandbox.run("renew").failed(2, "--ca-url is missing");
    let file = fs::read_to_string(sandbox.path(CONFIG)).unwrap();
    sandbox.write(CONFIG, &format!("{file}ca-url = \"https://127.0.0.1:1\"\n"));
    sandbox.run("renew").failed(4, "127.0.0.1:1");
    let typed = sandbox.run("renew --ca-url https://127.0.0.1:2");
    typed.failed(4, "127.0.0.1:2");
}
