//! What enters and leaves a program at its edges: the log on stderr, the clock, the signals that end it, systemd's
//! notice that it is ready, its exit code. For `main.rs` of every program; nothing below is built with it, and it knows
//! nothing of ours.

pub mod args;
mod log;
mod signal;

use std::fmt::Display;
use std::io::{Write, stderr};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sd_notify::NotifyState;

pub use log::{LogFlags, LogFormat};
pub use signal::{Ended, reload_at_hang_up, stop, stop_or_hang_up};

/// The wall clock, since 1970 UTC; 0 before it.
#[expect(
    clippy::disallowed_methods,
    reason = "time enters every program here and is passed down"
)]
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The wall clock in whole seconds since 1970 UTC.
pub fn epoch_secs() -> u64 {
    since_1970().as_secs()
}

/// Since the machine's start, asleep or awake, by a clock that is never set.
#[cfg(target_os = "linux")]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Since this was asked first, by a clock that is never set.
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

/// Which start of the machine this is, where the system tells it: another number each time.
pub fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

/// Tells systemd that the program is ready, if it was started by it.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// Tells systemd in a few words how the program is: `systemctl status` shows them.
pub fn tell_status(words: &str) {
    tell(NotifyState::Status(words));
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how we are");
    }
}

/// Lets as many files be open as the system lets us, and says how many those are: each connection is one.
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
            tracing::warn!(%error, current, "the number of open files stays as it is");
            limit.current
        }
    };
    may_be_open.unwrap_or(u64::MAX)
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
pub fn raise_open_files() -> u64 {
    u64::MAX
}

/// How a program ends: what went wrong is said on stderr, behind its name.
pub fn exit_code(program: &str, result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With its causes, as anyhow writes them. Some say what their own cause says as well. Where nobody can read it, the exit code
            // says so still.
            let text = format!("{error:#}");
            let _unread = writeln!(stderr(), "{program}: {}", once(&text));
            ExitCode::FAILURE
        }
    }
}

/// Without what only says again what stands before it.
fn once(text: &str) -> String {
    let mut parts: Vec<&str> = text.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}
