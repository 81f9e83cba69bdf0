//! CPU time and memory of a receiver on this machine. Linux only: elsewhere they are not known.

use serde::Serialize;

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ProcessUsage {
    /// User and system time since its start.
    pub(crate) cpu_secs: f64,
    /// Resident now.
    pub(crate) rss_bytes: u64,
    /// Resident at most.
    pub(crate) rss_max_bytes: u64,
}

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{listening_on, usage};

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn usage(_pid: u32) -> Option<ProcessUsage> {
    None
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn listening_on(_port: u16) -> Option<u32> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use super::ProcessUsage;

    /// What the process has used; `None` if it has ended.
    pub(crate) fn usage(pid: u32) -> Option<ProcessUsage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // proc_pid_stat(5), fields 14 and 15. The name of the program, field 2, may have anything
        // in it.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks: Option<u64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().ok())
            .sum();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(ProcessUsage {
            cpu_secs: ticks? as f64 / rustix::param::clock_ticks_per_second() as f64,
            rss_bytes: bytes("VmRSS:")?,
            rss_max_bytes: bytes("VmHWM:")?,
        })
    }

    /// The process of this user, or any for root, that listens on the port.
    pub(crate) fn listening_on(port: u16) -> Option<u32> {
        let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .into_iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listeners(&table, port))
            .collect();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        pids.into_iter().find(|pid: &u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd"));
            let files = files.into_iter().flatten().flatten();
            files
                .filter_map(|file| fs::read_link(file.path()).ok())
                .any(|link| sockets.iter().any(|socket| link.as_os_str() == &**socket))
        })
    }

    /// The listening sockets of the port in a table of proc_net_tcp(5), as links name them.
    fn listeners(table: &str, port: u16) -> Vec<String> {
        const LISTEN: &str = "0A";
        let local_end = format!(":{port:04X}");
        let of_line = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields.get(1)?.ends_with(&local_end) && *fields.get(3)? == LISTEN;
            is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        };
        table.lines().skip(1).filter_map(of_line).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn listeners_are_told_from_connections() {
            let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
                1: 0100007F:20FB 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1\n\
                2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
            assert_eq!(listeners(table, 8443), ["socket:[4711]"]);
            assert_eq!(listeners(table, 22), ["socket:[4713]"]);
            assert!(listeners(table, 443).is_empty());
        }

        #[test]
        fn this_process_is_found_by_its_port() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let pid = listening_on(port).unwrap();
            assert_eq!(pid, std::process::id());
            let used = usage(pid).unwrap();
            assert!(
                used.rss_bytes > 0 && used.rss_bytes <= used.rss_max_bytes,
                "{used:?}"
            );
        }
    }
}
