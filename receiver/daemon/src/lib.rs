//! The process environment of every program: flags and the file of settings, logging to stderr, the
//! clock, signals, systemd notifications, and the exit code. Only for `main.rs` of each program. No
//! library crate depends on it, and it depends on no other lizmon crate.

pub mod args;
mod config_file;
mod inherited_socket;
mod liveness;
mod log;
mod signal;
pub mod verbs;

use std::fmt::Display;
use std::io::{Write, stderr};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sd_notify::NotifyState;

pub use config_file::{ConfigFileError, ConfigFlags, LineFault};
pub use inherited_socket::{InheritedSocketError, ListenError, bind, inherited_listener, listener};
pub use liveness::{ALIVE_EVERY, HealthError, Liveness, LivenessFlags, SILENT_FOR};
pub use log::{LogFlags, LogFormat};
pub use signal::{Ended, reload_at_hang_up, stop, stop_or_hang_up};

/// The end of each daemon's help.
pub const DAEMON_HELP: &str = "\
Exit codes: 0 it was stopped by SIGTERM, SIGINT or SIGQUIT; 1 it failed, its last line says why; 2 wrong usage, or a wrong file of settings.
Certificates, keys, roots and CRLs are read again when they change; SIGHUP ends nothing.
When something is wrong: lizctl doctor --config FILE";

/// The wall clock: time since 1970 UTC; 0 before that.
#[expect(
    clippy::disallowed_methods,
    reason = "time enters every program here and is passed down"
)]
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The wall clock: whole seconds since 1970 UTC.
pub fn epoch_secs() -> u64 {
    since_1970().as_secs()
}

/// The time since boot, including sleep. The clock is monotonic.
#[cfg(target_os = "linux")]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The time since the first call. The clock is monotonic.
#[cfg(not(target_os = "linux"))]
#[expect(
    clippy::disallowed_methods,
    reason = "time enters every program here and is passed down"
)]
pub fn since_boot() -> Duration {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed()
}

/// The same in whole seconds.
pub fn since_boot_secs() -> u64 {
    since_boot().as_secs()
}

/// An identifier of this boot, if the system provides one. It differs for each boot.
pub fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

/// Tells systemd that the program is ready, if systemd started it.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// Sends a short status text to systemd, shown by `systemctl status`.
pub fn tell_status(words: &str) {
    tell(NotifyState::Status(words));
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// Raises the limit of open files to the maximum and returns it. Each connection needs one open
/// file.
#[cfg(unix)]
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let may_be_open = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            let current = limit
                .current
                .map_or_else(|| "unlimited".to_owned(), |files| files.to_string());
            tracing::warn!(%error, current, "cannot raise the limit on open files");
            limit.current
        }
    };
    may_be_open.unwrap_or(u64::MAX)
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub fn raise_open_files() -> u64 {
    u64::MAX
}

/// The exit code of a program. An error is printed to stderr with the program's name.
pub fn exit_code(program: &str, result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Prints the causes too, in the format of anyhow. Some errors already include their
            // cause. If stderr is closed, the exit code still reports the failure.
            let text = format!("{error:#}");
            let _unread = writeln!(stderr(), "{program}: {}", once(&text));
            ExitCode::FAILURE
        }
    }
}

/// Removes repeated parts of an error message.
fn once(text: &str) -> String {
    let mut parts: Vec<&str> = text.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}
