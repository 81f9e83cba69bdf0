"""Boots instances of deploy/aws for real: their user data runs in roots and network namespaces of their own,
with real packages, a real liz-ca, a real Valkey, moto behind the policies of deploy/aws, and a metadata
service that knows version 2 alone. From bare to the first accepted request in under a minute; and what an
attacker would try.

    boot.py      as root; target/debug (or LIZMON_PROGRAMS) has the programs, target/tools/aws the Python packages
"""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[2]
TOOLS = REPO / "target/tools/aws"
PROGRAM_FOLDER = pathlib.Path(os.environ.get("LIZMON_PROGRAMS", REPO / "target/debug"))
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import boto3  # noqa: E402

from cloud import ACCOUNT, ADMIN, KEY, PARAMETERS, REGION, Apis, instance_arn  # noqa: E402
from policy import Policies  # noqa: E402

# On a machine that does nothing else; one with twice as much to do as it has cores may take twice as long.
FIRST_REQUEST_SECS_MAX = 60
OUTSIDE = "10.99.0.1"
PORTS = {"apis": 5000, "moto": 5555, "store": 6379}
DOMAIN, CA_NAME = "metrics.example", "ca.lizmon.internal"
ADDRESSES = {"ca": "10.99.0.2", "rx1": "10.99.0.11", "rx2": "10.99.0.12", "rx3": "10.99.0.13", "sum1": "10.99.0.21"}
IDS = {"ca": "i-0ca", "rx1": "i-0a1", "rx2": "i-0a2", "rx3": "i-0a3", "sum1": "i-0b1"}
PASSWORD = "a-password-of-the-store"
VOLUME = "vol-0123456789abcdef0"
PROGRAMS = {"receiver": "liz-receiver", "summarizer": "liz-summarizer", "ca": "liz-ca", "lizctl": "lizctl"}
USERS = {"receiver": "lizmon", "summarizer": "lizmon", "ca": "lizmon-ca"}


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    if done.returncode:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def until(what, look, secs=30):
    """Waits for an event."""
    end = time.monotonic() + secs
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"{what} did not happen within {secs} s")


def check(what, holds, *details):
    print(("ok      " if holds else "FAILED  ") + what, *([] if holds else details), flush=True)
    if not holds:
        check.failed += 1
    check.count += 1


check.failed = check.count = 0


# ---- The world outside the instances


def enter_namespaces():
    """Everything that follows is gone with this process."""
    if os.environ.get("LIZMON_IN_NAMESPACES"):
        return
    if os.geteuid():
        sys.exit("boot.py: it makes namespaces and mounts: run it as root")
    os.environ["LIZMON_IN_NAMESPACES"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                          sys.executable, *sys.argv])


class World:
    def __init__(self):
        self.base = pathlib.Path("/run/lizmon-boot-test")
        self.base.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", self.base)
        pathlib.Path("/run/netns").mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        hosts = self.base / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{ADDRESSES['ca']} {CA_NAME}\n{OUTSIDE} {DOMAIN}\n")
        run("mount", "--bind", hosts, "/etc/hosts")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        self.processes = []
        self.seen = set()
        threading.Thread(target=self.watch_processes, daemon=True).start()

    def start(self, *command, **more):
        process = subprocess.Popen([str(word) for word in command], **more)
        self.processes.append(process)
        return process

    def watch_processes(self):
        """Command lines and environments that anybody could have seen."""
        while True:
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    for part in ("cmdline", "environ"):
                        with contextlib.suppress(OSError):
                            self.seen.add(pathlib.Path(f"/proc/{entry}/{part}").read_bytes())
            time.sleep(0.02)


def facts():
    return json.loads(run("node", HERE / "check.mjs", "--facts"))


def values_of():
    """What Terraform's names stand for here."""
    group = "arn:aws:autoscaling:{0}:{1}:autoScalingGroup:*:autoScalingGroupName/lizmon-".format(REGION, ACCOUNT)
    return {
        "local.parameter_arn": PARAMETERS,
        "local.join_prefix": "/lizmon/join",
        "local.parameter_prefix": "/lizmon",
        "local.fingerprint_parameter": "/lizmon/ca-fingerprint",
        "local.instance_tag": "lizmon-instance",
        "local.region": REGION,
        "var.name": "lizmon",
        "aws_kms_key.this.arn": KEY,
        "aws_ssm_parameter.store_password.arn": f"{PARAMETERS}/lizmon/store-password",
        **{f'local.group_arns["{role}"]': group + role for role in ("receiver", "summarizer")},
    }


def build_packages(world):
    """Small packages of the debug build, with the units of deploy/systemd. Returns URL and SHA-256 of each."""
    packages = {}
    for name, program in PROGRAMS.items():
        folder = world.base / f"package-{name}"
        (folder / "usr/bin").mkdir(parents=True)
        run("strip", "-o", folder / "usr/bin" / program, PROGRAM_FOLDER / program)
        (folder / "DEBIAN").mkdir()
        package = "lizctl" if name == "lizctl" else f"lizmon-{name}"
        (folder / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: 0.1.0\nArchitecture: all\nMaintainer: test <test@example.org>\n"
            "Description: a test\n")
        if user := USERS.get(name):
            units = folder / "usr/lib/systemd/system"
            units.mkdir(parents=True)
            shutil.copy(REPO / f"deploy/systemd/lizmon-{name}.service", units)
            script = folder / "DEBIAN/postinst"
            script.write_text(f"#!/bin/sh\nset -e\ngetent passwd {user} >/dev/null || "
                              f"useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin {user}\n")
            script.chmod(0o755)
        file = world.base / f"{package}.deb"
        run("dpkg-deb", "--build", "-Znone", "--root-owner-group", folder, file)
        shutil.rmtree(folder)
        packages[name] = (f"s3://packages/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest(), file)
    return packages


def balancer(port, target):
    """A network balancer: TCP alone, with version 2 of the PROXY protocol towards its targets."""
    listener = socket.create_server((OUTSIDE, port))

    def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(client, peer):
        with contextlib.suppress(OSError):
            server = socket.create_connection((target, 8443))
            addresses = socket.inet_aton(peer[0]) + socket.inet_aton(OUTSIDE) + struct.pack("!HH", peer[1], port)
            server.sendall(b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(addresses)) + addresses)
            threading.Thread(target=copy, args=(server, client), daemon=True).start()
            copy(client, server)

    def accept():
        while True:
            threading.Thread(target=serve, args=listener.accept(), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


# ---- An instance


class Instance:
    """A root of its own over the machine's, a network namespace, a metadata service."""

    def __init__(self, world, name, role, identity=None):
        self.world, self.name, self.role = world, name, role
        self.id = identity or IDS[name]
        self.key = "AKIA" + self.id.replace("-", "").upper()
        self.place = world.base / f"root-{name}-{len(world.processes)}"
        self.root = self.place / "root"
        self.log = self.place / "user-data.log"
        self.mount()
        self.connect()
        self.state_file = self.place / "state.json"
        self.set_state()
        self.metadata = world.start("nsenter", f"--net=/run/netns/{self.name}", sys.executable, HERE / "cloud.py", "metadata",
                                    self.state_file)

    def mount(self):
        self.overlay("/", self.root)
        run("mount", "--rbind", "/dev", self.root / "dev")
        run("mount", "-t", "proc", "proc", self.root / "proc")
        for folder in ("run", "tmp"):
            run("mount", "-t", "tmpfs", "tmpfs", self.root / folder)
        (self.root / "tmp").chmod(0o1777)
        # A clone in one of these is not hidden.
        if REPO.is_relative_to("/tmp") or REPO.is_relative_to("/run"):
            self.overlay(REPO, self.root / REPO.relative_to("/"))
        # The users of the instance run Python, wherever it is.
        for folder in [*TOOLS.parents, *pathlib.Path(sys.base_prefix).parents]:
            inside = self.root / folder.relative_to("/")
            inside.chmod(inside.stat().st_mode | 0o011)
        shutil.copy("/etc/hosts", self.root / "etc/hosts")
        self.program("usr/bin/systemctl", f"#!{sys.executable}\n" + (HERE / "systemctl.py").read_text())
        # A short process may not be seen in /proc: these two leave their arguments.
        record = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>/run/arguments\n"
        self.program("run/arguments", "")
        (self.root / "run/arguments").chmod(0o666)
        self.program("usr/local/bin/aws", record
                     + f"AWS_ENDPOINT_URL=http://{OUTSIDE}:{PORTS['apis']} exec {TOOLS}/bin/aws \"$@\"\n")
        self.program("usr/local/bin/lizctl", record + "exec /usr/bin/lizctl \"$@\"\n")

    def overlay(self, below, at):
        """What is below, as the instance's own: changes stay in its place."""
        place = self.place / f"overlay-{len(list(self.place.glob('overlay-*')))}"
        for folder in (place / "upper", place / "work", at):
            folder.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "overlay", "overlay", "-o",
            f"lowerdir={below},upperdir={place}/upper,workdir={place}/work", at)

    def program(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def connect(self):
        if pathlib.Path(f"/run/netns/{self.name}").exists():
            return
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"v-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"v-{self.name}", "master", "br0", "up")
        for words in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"],
                      ["address", "add", f"{ADDRESSES[self.name]}/24", "dev", "eth0"],
                      ["address", "add", "169.254.169.254/32", "dev", "lo"]):
            run("ip", "-n", self.name, *words)

    def set_state(self, **more):
        state = {"instance": self.id, "role": f"lizmon-{self.role}", "key": self.key, **more}
        new = self.state_file.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.rename(self.state_file)

    def command(self, *command):
        return ["nsenter", f"--net=/run/netns/{self.name}", "chroot", self.root, *command]

    def boot(self, settings, script):
        """Runs the user data as cloud-init does, and returns its exit code."""
        # Unless the settings say so, a test does not wait for minutes.
        settings = {"DEADLINE_SECS": 60, **settings}
        lines = "".join(f"BOOT_{name}='{value}'\n" for name, value in settings.items())
        user_data = self.root / "run/user-data"
        user_data.write_text("#!/bin/bash\n" + lines + (REPO / "deploy/aws/user-data" / script).read_text())
        user_data.chmod(0o700)
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        with open(self.log, "ab") as log:
            return subprocess.run([str(word) for word in self.command("/run/user-data")], env=environment,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode

    def stop(self):
        for unit in ("lizmon-lifecycle", f"lizmon-{self.role}", "lizmon-mint"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.root / f"run/{unit}.service.pid").read_text()), signal.SIGKILL)
        self.metadata.kill()

    def written(self):
        """Every file that it has written, and what user data printed."""
        places = [*self.place.glob("overlay-*/upper"), self.root / "run", self.root / "tmp"]
        files = [file for place in places for file in place.rglob("*") if file.is_file() and not file.is_symlink()]
        # A clone in /tmp is no instance's: its changes are in an overlay of their own.
        clone = self.root / REPO.relative_to("/")
        return [*(file for file in files if not file.is_relative_to(clone)), self.log]


# ---- The test


class Test:
    def __init__(self):
        self.world = World()
        self.facts = facts()
        self.packages = build_packages(self.world)
        by_role = {role: [f"arn:aws:s3:::{self.packages[name][0].removeprefix('s3://')}" for name in (role, "lizctl")]
                   for role in ("receiver", "summarizer", "ca")}
        policies = Policies(self.facts, values_of(), by_role)
        self.apis = Apis((OUTSIDE, PORTS["apis"]), ("127.0.0.1", PORTS["moto"]), policies)
        self.log = open(self.world.base / "outside.log", "ab")
        self.start_services()

    def start_services(self):
        quiet = {"stdout": self.log, "stderr": self.log}
        self.world.start(TOOLS / "bin/moto_server", "-H", "127.0.0.1", "-p", PORTS["moto"], **quiet)
        folder = self.world.base / "valkey"
        folder.mkdir()
        (folder / "users.acl").write_text(
            f"user default off\nuser lizmon >{PASSWORD} {self.facts['store_access']}\n")
        valkey = next((REPO / "target/tools/valkey").glob("**/linux-*/valkey-server"))
        self.world.start(valkey, "--bind", OUTSIDE, "--port", PORTS["store"], "--dir", folder, "--appendonly",
                         "yes", "--appendfsync", "always", "--save", "", "--maxmemory", "256mb", "--maxmemory-policy",
                         "noeviction", "--aclfile", folder / "users.acl", **quiet)
        for port, host in ((PORTS["moto"], "127.0.0.1"), (PORTS["store"], OUTSIDE)):
            until(f"{host}:{port} listens", lambda: is_open(host, port))
        s3 = self.admin("s3")
        s3.create_bucket(Bucket="packages", CreateBucketConfiguration={"LocationConstraint": REGION})
        for _, _, file in self.packages.values():
            s3.put_object(Bucket="packages", Key=file.name, Body=file.read_bytes())
        self.put_parameter("/lizmon/store-password", PASSWORD)

    def admin(self, service):
        return boto3.client(service, region_name=REGION, endpoint_url=f"http://{OUTSIDE}:{PORTS['apis']}",
                            aws_access_key_id=ADMIN, aws_secret_access_key="x")

    def put_parameter(self, name, value, tags=()):
        self.admin("ssm").put_parameter(Name=name, Value=value, Type="SecureString", KeyId=KEY, Tags=list(tags))

    def instance(self, name, role, identity=None):
        instance = Instance(self.world, name, role, identity)
        with self.apis.lock:
            self.apis.instances[instance.key] = (role, instance.id)
        return instance

    def package_words(self, role):
        return " ".join(f"{url} {sha256}" for url, sha256, _ in (self.packages["lizctl"], self.packages[role]))

    def member_settings(self, role, **more):
        settings = {
            "REGION": REGION, "ROLE": role, "PACKAGES": self.package_words(role), "GROUP": f"lizmon-{role}",
            "LAUNCH_HOOK": "join", "TERMINATE_HOOK": "drain", "DEADLINE_SECS": 90, "CA_URL": f"https://{CA_NAME}:8444",
            "FINGERPRINT_PARAMETER": "/lizmon/ca-fingerprint", "JOIN_PREFIX": "/lizmon/join",
            "STORE_URL": f"redis://{OUTSIDE}:{PORTS['store']}", "STORE_USER": "lizmon",
            "PASSWORD_PARAMETER": "/lizmon/store-password", "ISSUER": f"https://{DOMAIN}",
            "PROXY_CIDRS": f"{OUTSIDE}/32", "CONNECTION_AGE": "15m", "METRICS_NAMESPACE": "lizmon",
            "LIFECYCLE_SCRIPT": encoded("lifecycle.sh"), **more,
        }
        same_names(settings, self.facts["settings"]["member.sh"])
        return settings

    def ca_settings(self):
        settings = {
            "REGION": REGION, "PACKAGES": self.package_words("ca"), "VOLUME": VOLUME, "CA_SANS": CA_NAME, "DOMAIN": DOMAIN,
            "FINGERPRINT_PARAMETER": "/lizmon/ca-fingerprint", "JOIN_PREFIX": "/lizmon/join", "KEY": KEY,
            "INSTANCE_TAG": "lizmon-instance", "INSTANCE_ARN_PREFIX": instance_arn(""),
            "GROUPS": "receiver=lizmon-receiver summarizer=lizmon-summarizer", "METRICS_NAMESPACE": "lizmon",
            "MINT_SCRIPT": encoded("mint.sh"),
        }
        same_names(settings, self.facts["settings"]["ca.sh"])
        return settings

    def launch(self, instance):
        """As the group does: the instance waits in the launch hook."""
        with self.apis.lock:
            self.apis.waiting.setdefault(f"lizmon-{instance.role}", set()).add(instance.id)

    def parameter(self, name):
        ssm = self.admin("ssm")
        try:
            return ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        except ssm.exceptions.ParameterNotFound:
            return None

    def token(self, instance):
        return self.parameter(f"/lizmon/join/{instance.id}")

    def completed(self, instance):
        with self.apis.lock:
            return [(hook, result) for hook, id, result in self.apis.completed if id == instance.id]


def encoded(script):
    return base64.b64encode((REPO / "deploy/aws/user-data" / script).read_bytes()).decode()


def same_names(settings, expected):
    if sorted(settings) != sorted(expected):
        raise SystemExit(f"Terraform sets other settings: {sorted(set(settings) ^ set(expected))}")


def is_open(host, port):
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def boot_ca(test):
    """An empty volume becomes a CA. Its device has the name that EBS volumes have."""
    image = test.world.base / "volume"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    device = run("losetup", "--find", "--show", image).strip()
    by_id = pathlib.Path("/dev/disk/by-id")
    by_id.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "tmpfs", by_id)
    (by_id / f"nvme-Amazon_Elastic_Block_Store_{VOLUME.replace('-', '')}").symlink_to(device)
    ca = test.instance("ca", "ca")
    started = time.monotonic()
    status = ca.boot(test.ca_settings(), "ca.sh")
    # It goes with the last mount of it.
    run("losetup", "--detach", device)
    check(f"the CA's instance serves, {time.monotonic() - started:.1f} s after its start", status == 0, ca.log.read_text(),
          log_of(ca))
    if status:
        sys.exit(1)
    return ca


def boot_receiver(test, ca):
    """The way from bare to the first accepted request."""
    node = test.world.base / "web1"
    token = run(*ca.command("runuser", "-u", "lizmon-ca", "--", "lizctl", "join-token", "web1", "--certs",
                            "/var/lib/lizmon-ca/certs")).strip()
    fingerprint = test.parameter("/lizmon/ca-fingerprint")
    lizctl = PROGRAM_FOLDER / "lizctl"
    run(lizctl, "join", f"https://{CA_NAME}:8444", "--token", "-", "--ca-fingerprint", fingerprint, "--out", node,
        input=token)
    balancer(443, ADDRESSES["rx1"])

    receiver = test.instance("rx1", "receiver")
    started = time.monotonic()
    test.launch(receiver)
    status = receiver.boot(test.member_settings("receiver", DEADLINE_SECS=30), "member.sh")
    push = [lizctl, "push", "web1", "cpu=12.5", "--receiver", f"https://{DOMAIN}", "--cert", node / "web1.crt", "--key",
            node / "web1.key", "--ca", node / "root.crt"]
    done = subprocess.run(list(map(str, push)), capture_output=True, text=True)
    secs = time.monotonic() - started
    load = max(1, os.getloadavg()[0] / os.cpu_count())
    check(f"a receiver is there, and its first request accepted, {secs:.1f} s after a bare start (load {load:.1f})",
          status == 0 and done.returncode == 0 and secs < FIRST_REQUEST_SECS_MAX * load, receiver.log.read_text(), done.stderr,
          log_of(receiver), log_of(ca, "mint"))
    if status:
        sys.exit(1)
    check("it has left the launch hook", test.completed(receiver) == [("join", "CONTINUE")], test.completed(receiver))
    check("its token's parameter is gone", test.token(receiver) is None)
    names = run("openssl", "x509", "-in", receiver.root / f"var/lib/lizmon-receiver/certs/{receiver.id}.crt", "-noout",
                "-ext", "subjectAltName")
    check("its certificate names it, and the site's domain alone",
          f"URI:spiffe://lizmon.internal/receiver/{receiver.id}" in names and names.count("DNS:") == 1
          and f"DNS:{DOMAIN}" in names and "IP" not in names, names)
    until("CloudWatch is told", lambda: any(who == ("receiver", receiver.id) for who, _ in test.apis.metrics))
    return receiver


def log_of(instance, unit=None):
    file = instance.root / f"var/log/lizmon-{unit or instance.role}.service.log"
    return f"\n{file.name}:\n{file.read_text()}" if file.exists() else f"no {file.name}"


def boot_summarizer(test):
    summarizer = test.instance("sum1", "summarizer")
    test.launch(summarizer)
    status = summarizer.boot(test.member_settings("summarizer"), "member.sh")
    check("a summarizer is there, with the store's rights of deploy/aws", status == 0, summarizer.log.read_text(),
          log_of(summarizer))
    check("it has left the launch hook", test.completed(summarizer) == [("join", "CONTINUE")])
    return summarizer


def attack(test, ca, receiver):
    """What somebody who has taken over the receiver tries, and what a thief of a token does."""
    other = test.instance("rx2", "receiver")
    test.launch(other)
    until("the other's token", lambda: test.token(other))
    aws = ["/usr/local/bin/aws", "--region", REGION]
    environment = ["/usr/bin/env", f"PATH={os.environ['PATH']}"]
    for what, words in {
        "read another's token": ["ssm", "get-parameter", "--name", f"/lizmon/join/{other.id}", "--with-decryption"],
        "delete another's token": ["ssm", "delete-parameter", "--name", f"/lizmon/join/{other.id}"],
        "write a token": ["ssm", "put-parameter", "--name", f"/lizmon/join/{receiver.id}", "--type", "String", "--value", "x"],
        "publish another fingerprint": ["ssm", "put-parameter", "--name", "/lizmon/ca-fingerprint", "--type", "String",
                                        "--overwrite", "--value", "0" * 64],
        "end a summarizer's start": ["autoscaling", "complete-lifecycle-action", "--auto-scaling-group-name",
                                     "lizmon-summarizer", "--lifecycle-hook-name", "join", "--instance-id", "i-0b1",
                                     "--lifecycle-action-result", "ABANDON"],
    }.items():
        done = subprocess.run([str(word) for word in receiver.command(*environment, *aws, *words)], capture_output=True,
                              text=True)
        check(f"a receiver may not {what}", done.returncode != 0 and "AccessDenied" in done.stderr, done.stderr)
    done = subprocess.run([str(word) for word in ca.command(*environment, *aws, "ssm", "get-parameter", "--name",
                                                            f"/lizmon/join/{other.id}", "--with-decryption")],
                          capture_output=True, text=True)
    check("the CA's instance may not read what it wrote", "AccessDenied" in done.stderr, done.stderr)
    done = subprocess.run([str(word) for word in receiver.command(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://169.254.169.254/latest/meta-data/instance-id")],
        capture_output=True, text=True)
    check("the metadata service says nothing to version 1", done.stdout == "401", done.stdout)
    return other


def boot_again(test, receiver, spent):
    """A second boot of the same instance: with nothing, and with the token that it spent."""
    receiver.stop()
    again = test.instance("rx1", "receiver", receiver.id)
    test.launch(again)
    status = again.boot(test.member_settings("receiver", DEADLINE_SECS=5), "member.sh")
    check("an instance gets no second token", status != 0 and test.token(again) is None, again.log.read_text())
    check("it is replaced", test.completed(again)[-1:] == [("join", "ABANDON")])
    again.stop()

    tag = {"Key": "lizmon-instance", "Value": instance_arn(receiver.id)}
    test.put_parameter(f"/lizmon/join/{receiver.id}", spent, [tag])
    thief = test.instance("rx1", "receiver", receiver.id)
    started = time.monotonic()
    status = thief.boot(test.member_settings("receiver"), "member.sh")
    said = thief.log.read_text()
    check(f"a spent token is refused, and the boot ends at once ({time.monotonic() - started:.1f} s)",
          status == 3 and not list((thief.root / "var/lib/lizmon-receiver/certs").glob("*.crt")), status, said)
    check("it is replaced", test.completed(thief)[-1:] == [("join", "ABANDON")])
    thief.stop()


def boot_with_a_wrong_package(test):
    """The bytes of a package are not those that Terraform was given."""
    instance = test.instance("rx3", "receiver")
    url, _, _ = test.packages["lizctl"]
    settings = test.member_settings("receiver", PACKAGES=f"{url} {'0' * 64}")
    status = instance.boot(settings, "member.sh")
    check("a package with another SHA-256 is not installed",
          status == 3 and not (instance.root / "usr/bin/lizctl").exists(), instance.log.read_text())
    check("the instance is replaced", test.completed(instance) == [("join", "ABANDON")])
    instance.stop()


def boot_without_a_ca(test, ca, other):
    """The CA is away, and does not come back in time."""
    pid = int((ca.root / "run/lizmon-ca.service.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    status = other.boot(test.member_settings("receiver", DEADLINE_SECS=12), "member.sh")
    os.kill(pid, signal.SIGCONT)
    check("without a CA an instance tries until its deadline, and is replaced",
          status != 0 and test.completed(other) == [("join", "ABANDON")], other.log.read_text())
    other.stop()


def drain(test, receiver):
    """The group ends the receiver: it drains first."""
    receiver.set_state(**{"target-state": "Terminated"})
    until("the drain hook is left", lambda: ("drain", "CONTINUE") in test.completed(receiver))
    check("a receiver that the group ends has drained before it goes",
          (receiver.root / "run/lizmon-receiver.service.exit").read_text() == "0", log_of(receiver))


def no_secrets(test, instances, tokens):
    """Tokens are in no file of an instance, no command line and no environment."""
    leaks = []
    for instance in instances:
        for file in instance.written():
            with contextlib.suppress(OSError):
                content = file.read_bytes()
                if any(token.encode() in content for token in tokens):
                    leaks.append(f"a token in {file}")
                if PASSWORD.encode() in content and not {"credstore", "credentials"} & set(file.parts):
                    leaks.append(f"the password in {file}")
    for line in test.world.seen:
        if any(secret.encode() in line for secret in (*tokens, PASSWORD)):
            leaks.append(line)
    check(f"tokens and password are in no other file, log, command line or environment ({len(test.world.seen)} seen)",
          not leaks, leaks)


def main():
    enter_namespaces()
    started = time.monotonic()
    test = Test()
    print(f"        services and packages after {time.monotonic() - started:.1f} s", flush=True)
    ca = boot_ca(test)
    receiver = boot_receiver(test, ca)
    summarizer = boot_summarizer(test)
    other = attack(test, ca, receiver)
    tokens = [test.apis.written[f"/lizmon/join/{instance.id}"] for instance in (receiver, summarizer, other)]
    drain(test, receiver)
    # A quick instance asks for its own token before that is there, and again.
    early = re.compile(r"\w+ (i-\w+) may not ssm:GetParameter \S*/join/\1")
    denied = [what for what in test.apis.denied if not early.fullmatch(what)]
    check("nothing else was denied", len(denied) == 6, denied)
    no_secrets(test, [ca, receiver, summarizer], tokens)
    boot_again(test, receiver, tokens[0])
    boot_with_a_wrong_package(test)
    boot_without_a_ca(test, ca, other)
    print(f"{check.count - check.failed} passed, {check.failed} failed, {time.monotonic() - started:.0f} s")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
