//! Finds cgroups, and names them after what they are.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lizmon_protocol::name::Label;

use super::super::names;

/// Slices, and pods in them, are nested so deeply at most.
const DEPTH_MAX: usize = 10;
/// So many folders are looked at: far more than a machine has that works.
const FOLDERS_MAX: usize = 20_000;
/// Hexadecimal digits of a container's identifier, and how many of them its engine shows.
const CONTAINER_ID_DIGITS: usize = 64;
const SHOWN_ID_DIGITS: usize = 12;

/// A unit or a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cgroup {
    pub(super) name: String,
    pub(super) cpu: Label<'static>,
    pub(super) mem: Label<'static>,
    pub(super) folder: PathBuf,
}

/// All of them, in the order of their names. `None` where cgroup v2 is not mounted.
pub(super) fn find() -> Option<Vec<Cgroup>> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    Some(find_in(&mount_of(&mounts)?))
}

/// `cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0`: where it is mounted, without blanks in its path.
fn mount_of(mounts: &str) -> Option<PathBuf> {
    let line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    };
    mounts.lines().find_map(line)
}

fn find_in(root: &Path) -> Vec<Cgroup> {
    let mut found = Vec::new();
    let mut folders = VecDeque::from([(root.to_owned(), 0)]);
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop_front() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            if seen > FOLDERS_MAX {
                break;
            }
            let path = entry.path();
            found.extend(
                path.strip_prefix(root)
                    .ok()
                    .and_then(|below| cgroup(below, &path)),
            );
            if depth < DEPTH_MAX {
                folders.push_back((path, depth + 1));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn cgroup(below: &Path, folder: &Path) -> Option<Cgroup> {
    let parts: Vec<&[u8]> = below.iter().map(OsStrExt::as_bytes).collect();
    let name = unit_name(&parts)?;
    Some(Cgroup {
        name: String::from_utf8_lossy(&name).into_owned(),
        cpu: names::label("cgroup-cpu:", &name).ok()?,
        mem: names::label("cgroup-mem:", &name).ok()?,
        folder: folder.to_owned(),
    })
}

/// Services and scopes by their names, a user's with the user's number before; containers by their
/// engine and the beginning of their identifier. `None` for slices, and what is inside of a unit.
fn unit_name(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let (last, before) = parts.split_last()?;
    if let Some(name) = container_name(last, before) {
        return Some(name);
    }
    let is_unit = last.ends_with(b".service") || last.ends_with(b".scope");
    let is_lxc = last.starts_with(b"lxc.payload.");
    if !is_unit && !is_lxc || *last == b"init.scope" {
        return None;
    }
    let of_user = before
        .iter()
        .rev()
        .find_map(|part| part.strip_prefix(b"user@")?.strip_suffix(b".service"));
    Some(match of_user {
        Some(user) => [user, b"/", last].concat(),
        None => last.to_vec(),
    })
}

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID.scope`, or a folder `ID`.
fn container_name(last: &[u8], before: &[&[u8]]) -> Option<Vec<u8>> {
    let bare = last.strip_suffix(b".scope").unwrap_or(last);
    let start = bare.len().checked_sub(CONTAINER_ID_DIGITS)?;
    let (engine, id) = bare.split_at(start);
    if !id.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let shown = &id[..SHOWN_ID_DIGITS];
    Some(match (engine.strip_suffix(b"-"), before.last()) {
        (Some(engine), _) => [engine, b"-", shown].concat(),
        // Engines that do not use systemd: /docker/ID, /kubepods/burstable/podUID/ID.
        (None, Some(parent)) if engine.is_empty() && parent.len() < CONTAINER_ID_DIGITS => {
            let engine = if parent.starts_with(b"pod") {
                b"pod"
            } else {
                *parent
            };
            [engine, b"-", shown].concat()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f5a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";

    #[test]
    fn units_and_containers() {
        let check = |path: &str, expected: Option<&str>| {
            let path = path.replace("ID", ID);
            let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            let name = unit_name(&parts).map(|name| String::from_utf8(name).unwrap());
            assert_eq!(name.as_deref(), expected, "{path}");
        };
        check("system.slice/nginx.service", Some("nginx.service"));
        check(
            "system.slice/system-getty.slice/getty@tty1.service",
            Some("getty@tty1.service"),
        );
        check(
            "user.slice/user-1000.slice/session-3.scope",
            Some("session-3.scope"),
        );
        check(
            "user.slice/user-1000.slice/user@1000.service",
            Some("user@1000.service"),
        );
        check(
            "user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service",
            Some("1000/dbus.service"),
        );
        check("system.slice/docker-ID.scope", Some("docker-4f5a1b2c3d4e"));
        check(
            "kubepods.slice/kubepods-burstable.slice/kubepods-pod1_2.slice/cri-containerd-ID.scope",
            Some("cri-containerd-4f5a1b2c3d4e"),
        );
        check("docker/ID", Some("docker-4f5a1b2c3d4e"));
        check("kubepods/burstable/pod1-2-3/ID", Some("pod-4f5a1b2c3d4e"));
        check("machine.slice/libpod-ID.scope", Some("libpod-4f5a1b2c3d4e"));
        check(
            "machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            Some("machine-qemu\\x2d1\\x2dvm.scope"),
        );
        check("lxc.payload.web", Some("lxc.payload.web"));
        for none in [
            "init.scope",
            "system.slice",
            "user.slice/user-0.slice",
            "lxc.monitor.web",
            "",
        ] {
            check(none, None);
        }
        // What systemd does inside of a container is not ours to name twice.
        check("docker/ID/init", None);
    }

    #[test]
    fn where_it_is_mounted() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let unified = "none /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(mount_of(unified), Some("/sys/fs/cgroup".into()));
        assert_eq!(
            mount_of("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\nx\n"),
            None
        );
    }

    #[test]
    fn thousands_are_found_in_the_order_of_their_names() {
        let root = tempfile::tempdir().unwrap();
        for at in (0..3_000).rev() {
            let unit = format!("system.slice/unit{at:04}.service/inner");
            fs::create_dir_all(root.path().join(unit)).unwrap();
        }
        let found = find_in(root.path());
        assert_eq!(found.len(), 3_000);
        assert_eq!(found[0].cpu.as_str(), "cgroup-cpu:unit0000.service");
        assert_eq!(found[2_999].mem.as_str(), "cgroup-mem:unit2999.service");
    }
}
