//! The test network: two network namespaces with a link between them, small disks, certificates.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::Role;

use crate::programs::{epoch_now, program, without_lizmon_env};

const INSIDE: &str = "LIZMON_CHAOS_INSIDE";
const RECEIVER_ADDRESS: &str = "10.77.0.1";
const MONITOR_ADDRESS: &str = "10.77.0.2";
/// The receiver's end of the link is in this namespace, the other end in ours.
const NAMESPACE: &str = "rx";
const VETH: [&str; 2] = ["liz-field", "liz-rx"];

/// Runs the body of this test in its own namespaces. When they end, all processes in them end.
pub(crate) fn inside(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let mut child = unshare()
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        eprintln!("{}", line.unwrap());
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{test}: {status}");
}

/// `unshare` as root, or in a user namespace.
fn unshare() -> Command {
    let own = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    for who in [&[][..], &["--user", "--map-root-user"]] {
        let mut trial = Command::new("unshare");
        trial.args(who).args(own).arg("true").stderr(Stdio::null());
        match trial.status() {
            Ok(status) if status.success() => {
                let mut command = Command::new("unshare");
                command.args(who).args(own);
                return command;
            }
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("there is no `unshare`: install util-linux and iproute2")
            }
            Err(error) => panic!("unshare: {error}"),
        }
    }
    panic!(
        "this test makes network and mount namespaces, and may not: run it as root, or allow it to everybody by \
         `sysctl kernel.unprivileged_userns_clone=1` (Debian) or `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu); \
         a container needs --privileged"
    )
}

pub(crate) fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    match Command::new(words[0]).args(&words[1..]).output() {
        Ok(done) => assert!(
            done.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&done.stderr)
        ),
        Err(error) => panic!("{command}: {error}: install iproute2, util-linux and mount"),
    }
}

/// Certificates, and a folder for all files of this test.
pub(crate) struct TestNetwork {
    ca: Authority,
    folder: tempfile::TempDir,
}

impl TestNetwork {
    /// Must be called inside the test's namespaces.
    pub(crate) fn new() -> Self {
        // Names of namespaces are files in /run/netns, which may belong to another user.
        run("mount -t tmpfs tmpfs /run");
        run(&format!("ip netns add {NAMESPACE}"));
        let [field, rx] = VETH;
        run("ip link set lo up");
        run(&format!(
            "ip link add {field} type veth peer name {rx} netns {NAMESPACE}"
        ));
        run(&format!("ip addr add {MONITOR_ADDRESS}/24 dev {field}"));
        run(&format!("ip link set {field} up"));
        run(&format!(
            "ip -n {NAMESPACE} addr add {RECEIVER_ADDRESS}/24 dev {rx}"
        ));
        run(&format!("ip -n {NAMESPACE} link set {rx} up"));
        run(&format!("ip -n {NAMESPACE} link set lo up"));
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        let ca = Authority::init(&certs, &InitOptions::default(), epoch_now()).unwrap();
        let mut request = Request::new(Role::Receiver, "main".parse().unwrap());
        request.sans = vec![RECEIVER_ADDRESS.parse().unwrap()];
        ca.issue(request, epoch_now()).unwrap();
        Self { ca, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mounts a disk of this many KiB.
    pub(crate) fn disk(&self, name: &str, kib: u64) -> SmallDisk {
        let mount = self.path(name);
        std::fs::create_dir(&mount).unwrap();
        run(&format!(
            "mount -t tmpfs -o size={kib}k,mode=700 tmpfs {}",
            mount.display()
        ));
        SmallDisk { mount }
    }

    pub(crate) fn credentials(&self, role: Role, name: &str) -> Credentials {
        let folder = match role {
            Role::Node => "nodes",
            _ => "readers",
        };
        let file = |end: &str| self.path(&format!("certs/{folder}/{name}.{end}"));
        if !file("crt").exists() {
            self.ca
                .issue(Request::new(role, name.parse().unwrap()), epoch_now())
                .unwrap();
        }
        Credentials {
            cert: file("crt"),
            key: file("key"),
            ca: self.path("certs/root.crt"),
        }
    }

    pub(crate) fn client(&self, role: Role, name: &str) -> Client {
        let url: BaseUrl = self.url().parse().unwrap();
        Client::new(url, &self.credentials(role, name), epoch_now()).unwrap()
    }

    pub(crate) fn listen(&self) -> String {
        format!("{RECEIVER_ADDRESS}:8443")
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.listen())
    }

    /// The receiver, on its side of the link.
    pub(crate) fn receiver(&self, data: &SmallDisk) -> Command {
        let mut command = Command::new("nsenter");
        without_lizmon_env(&mut command);
        command
            .arg(format!("--net=/run/netns/{NAMESPACE}"))
            .arg("--")
            .arg(program("liz-receiver"));
        let file = |name: &str| self.path("certs").join(name);
        command.args(["--listen", &self.listen()]);
        command
            .arg("--cert")
            .arg(file("receivers/main.crt"))
            .arg("--key")
            .arg(file("receivers/main.key"));
        command
            .arg("--ca")
            .arg(file("root.crt"))
            .arg("--crl")
            .arg(file("crl.pem"));
        command.arg("--data").arg(data.mount.join("data"));
        command
    }
}

/// Which end of the link goes down. At the monitors' end the network becomes unreachable; at the
/// receiver's end packets are lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Monitors,
    Receiver,
}

pub(crate) fn set_link(end: End, state: &str) {
    let [field, rx] = VETH;
    match end {
        End::Monitors => run(&format!("ip link set {field} {state}")),
        End::Receiver => run(&format!("ip -n {NAMESPACE} link set {rx} {state}")),
    }
}

/// A small disk that can be filled.
pub(crate) struct SmallDisk {
    pub(crate) mount: PathBuf,
}

impl SmallDisk {
    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Fills the disk completely.
    pub(crate) fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for bytes in [vec![0; 65_536], vec![0; 4_096], vec![0; 1]] {
            while file.write_all(&bytes).is_ok() {}
        }
    }

    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If it cannot be unmounted now, it goes with the namespace.
        let _done = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the programs' logs are in {}", self.folder.path().display());
        }
    }
}
