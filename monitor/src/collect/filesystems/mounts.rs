//! Which file systems are mounted, and which of them are measured: proc_pid_mountinfo(5).

use std::collections::BTreeMap;

use super::super::options::Patterns;

/// Types without a disk of their own, or that are full by nature.
const SKIPPED_TYPES: [&str; 39] = [
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cramfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "ecryptfs",
    "efivarfs",
    "erofs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "romfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udf",
];
/// Files that engines mount into a container, each from the disk of its host: where one is the only
/// mount of that disk, nothing is known of the host's.
const SKIPPED_POINTS: [&[u8]; 5] = [
    b"/etc/hosts",
    b"/etc/hostname",
    b"/etc/resolv.conf",
    b"/run/.containerenv",
    b"/usr/sbin/docker-init",
];
/// Where the file system of a container is mounted, an overlay mostly: all that it has.
const ROOT: &[u8] = b"/";

/// A mounted file system that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is.
    pub(super) point: Vec<u8>,
}

/// A line of the file.
struct Line<'t> {
    /// `MAJOR:MINOR`.
    device: &'t [u8],
    /// The folder of the file system that is mounted.
    root: &'t [u8],
    point: Vec<u8>,
    kind: &'t [u8],
    source: &'t [u8],
}

/// Those that the patterns choose; otherwise each device once, where it is mounted as a whole or
/// else at the shortest path: a bind mount shows the same numbers again. In the order of their
/// paths.
pub(super) fn chosen(mountinfo: &[u8], patterns: &Patterns) -> Vec<Mount> {
    let mut by_point: BTreeMap<Vec<u8>, Line<'_>> = BTreeMap::new();
    for line in mountinfo.split(|byte| *byte == b'\n').filter_map(line) {
        // Of several at one place the last one is seen.
        by_point.insert(line.point.clone(), line);
    }
    let mut best: BTreeMap<&[u8], &Line<'_>> = BTreeMap::new();
    let default = by_point.values().filter(|line| is_default(line));
    for line in default {
        let rank = |line: &Line<'_>| (line.root != ROOT, line.point.len());
        let known = best.entry(line.device).or_insert(line);
        if rank(line) < rank(known) {
            *known = line;
        }
    }
    let is_best = |line: &Line<'_>| {
        best.get(line.device)
            .is_some_and(|best| best.point == line.point)
    };
    let chosen = by_point
        .values()
        .filter(|line| patterns.takes(&String::from_utf8_lossy(&line.point), || is_best(line)));
    chosen
        .map(|line| Mount {
            point: line.point.clone(),
        })
        .collect()
}

fn is_default(line: &Line<'_>) -> bool {
    if line.kind == b"overlay" {
        return line.point == ROOT;
    }
    let is_skipped = SKIPPED_TYPES
        .iter()
        .any(|skipped| skipped.as_bytes() == line.kind);
    !is_skipped
        && !line.source.starts_with(b"/dev/loop")
        && !SKIPPED_POINTS.contains(&&line.point[..])
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn line(text: &[u8]) -> Option<Line<'_>> {
    let mut fields = text.split(|byte| *byte == b' ');
    let mut field = || fields.next();
    let (_id, _parent, device, root, point) = (field()?, field()?, field()?, field()?, field()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Line {
        device,
        root,
        point: unescaped(point),
        kind: rest.next()?,
        source: rest.next()?,
    })
}

/// Space, tab, line feed and backslash are written in octal: `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = value.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334492k,mode=755
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 27 8:1 / /boot/efi rw,relatime shared:3 master:2 - vfat /dev/sda1 rw
43 27 254:0 /srv/www /var/www rw,relatime - ext4 /dev/vda rw
44 27 7:3 / /snap/core/1 ro - squashfs /dev/loop3 ro
45 27 7:4 / /mnt/image rw - ext4 /dev/loop4 rw
46 27 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
47 27 0:51 / /mnt/nfs rw - nfs4 server:/export rw
48 27 0:52 / /mnt/My\\040Disk\\134x rw - fuseblk /dev/sdb1 rw
49 27 0:53 / /run/user/1000/gvfs rw - fuse.gvfsd-fuse gvfsd-fuse rw
50 27 0:54 @home /home rw - btrfs /dev/sdc rw
51 27 0:54 @ /data rw - btrfs /dev/sdc rw
";

    fn check(mountinfo: &str, patterns: &[&str], expected: &[&str]) {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap());
        let mounts = chosen(mountinfo.as_bytes(), &Patterns::new(patterns.collect()));
        let points: Vec<_> = mounts
            .iter()
            .map(|mount| String::from_utf8_lossy(&mount.point))
            .collect();
        assert_eq!(points, expected);
    }

    #[test]
    fn each_disk_once_and_nothing_that_is_none() {
        check(
            SERVER,
            &[],
            &["/", "/boot/efi", "/data", "/mnt/My Disk\\x", "/mnt/nfs"],
        );
        check(SERVER, &["!/mnt/*"], &["/", "/boot/efi", "/data"]);
        check(SERVER, &["/dev/shm", "/var/www"], &["/dev/shm", "/var/www"]);
        check(SERVER, &["/snap/*", "/nowhere"], &["/snap/core/1"]);
    }

    #[test]
    fn the_root_of_a_container_is_measured() {
        let container = "\
1 0 0:40 / / rw - overlay overlay rw,lowerdir=/a:/b
2 1 0:41 / /proc rw - proc proc rw
3 1 254:1 /var/lib/docker/x/hosts /etc/hosts rw - ext4 /dev/sda1 rw
4 1 254:1 /var/lib/docker/x/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw
";
        check(container, &[], &["/"]);
        let with_volume =
            format!("{container}5 1 254:1 /srv /var/lib/a-longer-path rw - ext4 /dev/sda1 rw\n");
        check(&with_volume, &[], &["/", "/var/lib/a-longer-path"]);
    }

    #[test]
    fn hostile_lines() {
        // Of two at one place, the last one; lines that are cut; a dash in the options.
        check(
            "1 0 8:1 / /a rw - ext4 /dev/sda1 rw\n2 0 0:9 / /a rw - tmpfs tmpfs rw\n",
            &[],
            &[],
        );
        check(
            "1 0 8:1 / /a rw\n1 0 8:1\n\n1 0 8:1 / /b rw - ext4\n",
            &[],
            &[],
        );
        check(
            "1 0 8:1 / /a rw opt:1 opt:2 - ext4 /dev/sda1 rw",
            &[],
            &["/a"],
        );
        check("1 0 8:1 / /\\04 rw - ext4 /dev/sda1 rw", &[], &["/\\04"]);
        check("1 0 8:1 / /\\777 rw - ext4 /dev/sda1 rw", &[], &["/\\777"]);
        let bytes = b"1 0 8:1 / /\xff\\012 rw - ext4 /dev/sda1 rw";
        let mounts = chosen(bytes, &Patterns::default());
        assert_eq!(
            mounts,
            [Mount {
                point: b"/\xff\n".to_vec()
            }]
        );
        check("", &[], &[]);
    }
}
