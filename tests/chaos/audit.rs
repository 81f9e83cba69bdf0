//! `lizctl audit`, as an operator would run it.

use std::process::Command;

use lizmon_client::Credentials;
use lizmon_protocol::name::NodeName;

use crate::programs::{program, without_lizmon_env};

/// It says that nothing of this host is lost and nothing is there twice.
pub(crate) fn audit(reader: &Credentials, receiver: &str, host: &NodeName) {
    let mut command = Command::new(program("lizctl"));
    without_lizmon_env(&mut command);
    command.args(["audit", host.as_str(), "--json", "--wait", "30s"]);
    command.args(["--receiver", receiver]);
    command.arg("--cert").arg(&reader.cert);
    command.arg("--key").arg(&reader.key);
    command.arg("--ca").arg(&reader.ca);
    let done = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&done.stdout);
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "audit of {host}: {stderr}{stdout}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let told = (&report["lost"], &report["twice"]);
    assert_eq!(told, (&0.into(), &0.into()), "{host}: {report}");
}
