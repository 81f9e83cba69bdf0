//! Third-party OAuth clients get a token from the metadata document alone, and use it.
//!
//! `tests/run` installs them: requests-oauthlib beside pkilint, oauth4webapi and jose in
//! `target/tools/node`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::World;
use crate::harness::process::run;

/// Python with the packages that `tests/run` installs, and a script of ours.
pub(crate) fn python(name: &str) -> Command {
    let mut python = tool("python");
    python.arg(script(name));
    python
}

/// A program of those packages.
pub(crate) fn tool(name: &str) -> Command {
    let tools = std::env::var_os("LIZMON_TEST_TOOLS")
        .map_or_else(|| repository().join("target/tools/venv/bin"), PathBuf::from);
    Command::new(tools.join(name))
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn script(name: &str) -> PathBuf {
    repository().join("tests/e2e/clients").join(name)
}

/// Runs a client against its own receiver, as node web1.
async fn check(mut client: Command) {
    let world = World::start().await;
    let web1 = world.node("web1");
    let file = |ending| world.certs().join(format!("nodes/web1.{ending}"));
    client
        .args([
            world.issuer(),
            "web1".to_owned(),
            world.clock.now().to_string(),
        ])
        .arg("spiffe://lizmon.internal/node/web1")
        .args([file("crt"), file("key"), world.root()]);
    let finished = tokio::task::spawn_blocking(move || run(&mut client))
        .await
        .unwrap();
    assert_eq!(finished.success().trim(), "ok");
    let token = world.token(&web1).await;
    let found = world
        .get(&web1, &token, "/api/perf/web1/cpu")
        .await
        .json("what the client sent");
    assert_eq!(found["summary:by-hour:cpu"]["averages"][0]["avg"], 4.98);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_oauthlib_gets_a_token_and_uses_it() {
    check(python("requests_oauthlib_client.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth4webapi_gets_a_token_and_jose_verifies_it() {
    // Node looks for modules from the folder of the script.
    let name = "oauth4webapi_client.mjs";
    let copy = repository().join("target/tools/node").join(name);
    std::fs::copy(script(name), &copy).expect("target/tools/node is made by ./tests/run");
    let mut node = Command::new("node");
    node.arg(copy);
    check(node).await;
}
