//! Network namespaces on a bridge, one for each process that is cut off, and certificates.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::Role;

use super::{ENGINES, Plan, RECEIVERS, SUMMARIZERS, folder_of};
use crate::netns::run;
use crate::programs::{epoch_now, program, without_lizmon_env};

const NETWORK: [u8; 3] = [10, 78, 0];
const BRIDGE: &str = "liz-bridge";
const OWN: u8 = 254;
const FIRST_SERVER: u8 = 1;
const FIRST_RECEIVER: u8 = 11;
const FIRST_SUMMARIZER: u8 = 21;
/// All receivers are one to their clients.
const GROUP_URL: &str = "https://lizmon.example";
/// Short, so that connections end by their age as well.
const CONNECTION_AGE: &str = "15s";

/// A namespace with one address.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

impl Place {
    fn new(kind: &str, at: u8, first: u8) -> Self {
        let [a, b, c] = NETWORK;
        Self {
            name: format!("{kind}{at}"),
            address: Ipv4Addr::new(a, b, c, first + at),
        }
    }

    /// The bridge's end of its link. A name of an interface has 15 bytes at most.
    fn link(&self) -> String {
        format!("liz-{}", self.address.octets()[3])
    }

    fn set_up(&self) {
        let Self { name, address } = self;
        let link = self.link();
        run(&format!("ip netns add {name}"));
        run(&format!(
            "ip link add {link} type veth peer name eth0 netns {name}"
        ));
        run(&format!("ip link set {link} master {BRIDGE} up"));
        run(&format!("ip -n {name} addr add {address}/24 dev eth0"));
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!("ip -n {name} link set lo up"));
    }

    /// Packets are lost, in both directions.
    pub(crate) fn cut(&self) {
        run(&format!("ip link set {} down", self.link()));
    }

    pub(crate) fn mend(&self) {
        run(&format!("ip link set {} up", self.link()));
    }

    /// What a command is begun with to run here.
    pub(crate) fn launcher(&self) -> Vec<String> {
        ["nsenter", &format!("--net=/run/netns/{}", self.name), "--"]
            .map(str::to_owned)
            .to_vec()
    }

    fn command(&self, program_name: &str) -> Command {
        let launcher = self.launcher();
        let mut command = Command::new(&launcher[0]);
        without_lizmon_env(&mut command);
        command.args(&launcher[1..]).arg(program(program_name));
        command
    }
}

/// Certificates, namespaces, and a folder for all files of this test.
pub(crate) struct GroupNetwork {
    ca: Authority,
    folder: tempfile::TempDir,
}

impl GroupNetwork {
    /// Must be called inside the test's namespaces.
    pub(crate) fn new() -> Self {
        // Names of namespaces are files in /run/netns, which may belong to another user.
        run("mount -t tmpfs tmpfs /run");
        run("ip link set lo up");
        run(&format!("ip link add {BRIDGE} type bridge"));
        run(&format!("ip link set {BRIDGE} up"));
        let [a, b, c] = NETWORK;
        run(&format!("ip addr add {a}.{b}.{c}.{OWN}/24 dev {BRIDGE}"));
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        let ca = Authority::init(&certs, &InitOptions::default(), epoch_now()).unwrap();
        let network = Self { ca, folder };
        for at in 0..ENGINES {
            network.server_place(at).set_up();
        }
        for at in 0..RECEIVERS {
            let place = receiver_place(at);
            place.set_up();
            let mut request = Request::new(Role::Receiver, place.name.parse().unwrap());
            request.sans = vec![place.address.to_string().parse().unwrap()];
            network.ca.issue(request, epoch_now()).unwrap();
        }
        for at in 0..SUMMARIZERS {
            summarizer_place(at).set_up();
        }
        network
    }

    pub(crate) fn server_place(&self, at: u8) -> Place {
        Place::new("server", at, FIRST_SERVER)
    }

    pub(crate) fn place_of(&self, address: IpAddr) -> Place {
        let mut places = (0..ENGINES).map(|at| self.server_place(at));
        places.find(|place| place.address == address).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn credentials(&self, role: Role, name: &str) -> Credentials {
        let folder = folder_of(role);
        let file = |end: &str| self.path(&format!("certs/{folder}/{name}.{end}"));
        if !file("crt").exists() {
            let request = Request::new(role, name.parse().unwrap());
            self.ca.issue(request, epoch_now()).unwrap();
        }
        Credentials {
            cert: file("crt"),
            key: file("key"),
            ca: self.path("certs/root.crt"),
        }
    }

    /// A client of each receiver.
    pub(crate) fn clients(&self, role: Role, name: &str) -> Vec<Client> {
        let credentials = self.credentials(role, name);
        let client = |at| {
            let url: BaseUrl = receiver_url(at).parse().unwrap();
            Client::new(url, &credentials, epoch_now()).unwrap()
        };
        (0..RECEIVERS).map(client).collect()
    }

    pub(crate) fn receiver(&self, at: u8, store: &str, plan: Plan) -> (Place, Command) {
        let place = receiver_place(at);
        let mut command = place.command("liz-receiver");
        command.args(["--listen", &format!("{}:8443", place.address)]);
        command.args(["--issuer", GROUP_URL, "--audience", GROUP_URL]);
        command.args(["--connection-age", CONNECTION_AGE]);
        command.args(["--min-replicas", &plan.min_replicas.to_string()]);
        command.arg("--data").arg(self.path(&format!("data-{at}")));
        self.add_trust(&mut command, Role::Receiver, &place.name, store);
        (place, command)
    }

    pub(crate) fn summarizer(&self, at: u8, store: &str) -> (Place, Command) {
        let place = summarizer_place(at);
        let mut command = place.command("liz-summarizer");
        self.add_trust(&mut command, Role::Summarizer, &place.name, store);
        (place, command)
    }

    fn add_trust(&self, command: &mut Command, role: Role, name: &str, store: &str) {
        let credentials = self.credentials(role, name);
        command.args(["--store", store]);
        command.arg("--cert").arg(credentials.cert);
        command.arg("--key").arg(credentials.key);
        command.arg("--ca").arg(credentials.ca);
        command.arg("--crl").arg(self.path("certs/crl.pem"));
    }
}

fn receiver_place(at: u8) -> Place {
    Place::new("receiver", at, FIRST_RECEIVER)
}

fn summarizer_place(at: u8) -> Place {
    Place::new("summarizer", at, FIRST_SUMMARIZER)
}

pub(crate) fn receiver_url(at: u8) -> String {
    format!("https://{}:8443", receiver_place(at).address)
}

impl Drop for GroupNetwork {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the programs' logs are in {}", self.folder.path().display());
        }
    }
}
