//! A temporary folder in which `lizctl` is run.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A temporary folder; `lizctl` runs in it without environment variables of ours.
pub(crate) struct Sandbox {
    pub(crate) dir: TempDir,
}

/// Exit code and output of a run.
#[derive(Debug)]
pub(crate) struct RunOutput {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    pub(crate) fn with_ca() -> Self {
        let sandbox = Self::new();
        sandbox.run("init-ca").done();
        sandbox
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lizctl"));
        let ours = |name: &String| name.starts_with("LIZMON_");
        for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        // Not the profiles of whoever runs the tests.
        command.env("XDG_CONFIG_HOME", self.dir.path().join("config"));
        command.env_remove("RUST_LOG").current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, line: &str) -> RunOutput {
        let mut command = self.command();
        command.args(line.split_whitespace());
        ran(command.output().unwrap())
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    #[cfg(unix)]
    pub(crate) fn chmod(&self, file: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.path(file), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(line).done().stdout).unwrap()
    }

    /// Role and name of all leaf certificates that were issued.
    pub(crate) fn issued(&self) -> Vec<String> {
        let list = self.json("list --json");
        let listed = list["certificates"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let leaf = |entry: &&Value| !entry["identity"].is_null();
        listed
            .filter(leaf)
            .map(|entry| format!("{} {}", text(&entry["role"]), text(&entry["name"])))
            .collect()
    }
}

pub(crate) fn ran(output: Output) -> RunOutput {
    RunOutput {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl RunOutput {
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Failed with one line on stderr that names the culprit, and nothing on stdout.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, culprit: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert!(self.stderr.contains(culprit), "{culprit}: {self:?}");
        if code == 1 {
            assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
            assert!(self.stderr.starts_with("lizctl: "), "{self:?}");
        }
    }
}
