"""The packages, on a Debian as a person has it: installed, used, upgraded, removed, purged."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import packages
from machine import SOURCES, Machine, Unit, run

CA = "/var/lib/lizmon-ca/certs"
RECEIVER = "/var/lib/lizmon-receiver/certs"
MONITOR = "/var/lib/lizmon-monitor/certs"
READ = (
    "lizctl --certs /root/none {verb} --receiver https://localhost:8443"
    " --cert /root/ada/ada.crt --key /root/ada/ada.key --ca /root/ada/root.crt"
)


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.packages = packages.build()
        cls.later = packages.build("0.1.1~later")

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lizmon-machine-")
        self.machine = Machine(self.folder)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.machine.close)

    def install(self, *names, of=None):
        return self.machine.install(*((of or self.packages)[name] for name in names))

    def summary(self, label="cpu"):
        """The newest summaries of web1, or None while there are none."""
        machine = self.machine
        command = READ.format(verb=f"query web1 {label}") + " --output json"
        done = subprocess.run(
            ["chroot", machine.root, "sh", "-c", command],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            return None
        found = json.loads(done.stdout).get(f"summary:by-minute:{label}", {})
        return sum(part["num-samples"] for part in found.get("averages", [])) or None

    def first_sample(self):
        """What docs/operating.md tells to do, on one machine."""
        machine = self.machine
        machine.sh(f"lizctl --certs {CA} init-ca", user="lizmon-ca")
        machine.set("ca", san='["localhost"]')
        machine.start("lizmon-ca")
        machine.sh(f"lizctl --certs {CA} issue-receiver rx1 --san localhost", user="lizmon-ca")
        files = f"{CA}/receivers/rx1.crt {CA}/receivers/rx1.key {CA}/root.crt {CA}/crl.pem"
        machine.sh(f"install -o lizmon -g lizmon -m 0600 -t {RECEIVER} {files}")
        machine.set(
            "receiver",
            cert=f'"{RECEIVER}/rx1.crt"',
            key=f'"{RECEIVER}/rx1.key"',
            ca=f'"{RECEIVER}/root.crt"',
            crl=f'"{RECEIVER}/crl.pem"',
            ca_url='"https://localhost:8444"',
        )
        machine.start("lizmon-receiver")
        token = machine.sh(f"lizctl --certs {CA} join-token web1 2>/tmp/said", user="lizmon-ca").strip()
        fingerprint = machine.sh(
            f"openssl x509 -in {CA}/root.crt -outform DER | sha256sum"
            if machine.path("/usr/bin/openssl").exists()
            else f"grep -oE '[0-9a-f]{{64}}' /tmp/said | head -n 1"
        ).split()[0]
        machine.sh(
            f"lizctl join https://localhost:8444 --token {token} --ca-fingerprint {fingerprint} --out {MONITOR}",
            user="lizmon-monitor",
        )
        machine.set(
            "monitor",
            this_host='"web1"',
            publish='["https://localhost:8443/api/perf"]',
            cert=f'"{MONITOR}/web1.crt"',
            key=f'"{MONITOR}/web1.key"',
            ca=f'"{MONITOR}/root.crt"',
            ca_url='"https://localhost:8444"',
        )
        machine.start("lizmon-monitor")
        machine.sh(f"lizctl --certs {CA} issue-reader ada --out /root/ada")
        return machine.wait("a sample arrives", self.summary)

    def test_a_sample_arrives_an_upgrade_keeps_it_and_a_purge_leaves_nothing(self):
        machine = self.machine
        before = machine.files()
        passwords = machine.path("/etc/passwd").read_text()
        self.install("lizctl", "lizmon-ca", "lizmon-receiver", "lizmon-monitor")
        for name in ("lizmon-ca", "lizmon-receiver", "lizmon-monitor"):
            unit = machine.unit(f"{name}.service")
            self.assertFalse(machine.may_start(unit), f"{name} has no certificate yet")
            link = machine.path(f"/etc/systemd/system/multi-user.target.wants/{name}.service")
            self.assertTrue(link.is_symlink(), f"{name} starts with the machine")
        self.assertFalse(machine.path("/etc/systemd/system/sockets.target.wants").exists())
        first = self.first_sample()

        for name in ("lizmon-ca", "lizmon-receiver", "lizmon-monitor"):
            machine.once(f"{name}-doctor")

        # While everything runs.
        settings = machine.path("/etc/lizmon/monitor.toml").read_text()
        said = self.install("lizctl", "lizmon-ca", "lizmon-receiver", "lizmon-monitor", of=self.later)
        self.assertIn("0.1.1~later", said)
        self.assertEqual(machine.path("/etc/lizmon/monitor.toml").read_text(), settings)
        machine.wait("samples go on", lambda: (self.summary() or 0) > first)
        for name in ("lizmon-monitor", "lizmon-receiver", "lizmon-ca"):
            machine.stop(name)
        kept = first
        for name in ("lizmon-ca", "lizmon-receiver"):
            machine.start(name)
        machine.wait("what was there", lambda: (self.summary() or 0) >= kept)
        machine.start("lizmon-monitor")
        kept = self.summary()
        machine.wait("samples go on", lambda: (self.summary() or 0) > kept)
        audit = machine.sh(READ.format(verb="audit web1"))
        self.assertRegex(audit, r"\blost\s+0\b|\b0 lost\b|lost 0")

        for name in ("lizmon-monitor", "lizmon-receiver", "lizmon-ca"):
            machine.stop(name)
        machine.sh("apt-get remove -y lizmon-receiver lizmon-monitor lizmon-ca lizctl")
        self.assertFalse(machine.path("/usr/bin/liz-receiver").exists())
        for kept in (f"{CA}/issuing.key", "/var/lib/lizmon-receiver/data/lizmon.db", "/etc/lizmon/ca.toml"):
            self.assertTrue(machine.path(kept).exists(), f"a removal keeps {kept}")
        machine.sh("apt-get purge -y lizmon-receiver lizmon-monitor lizmon-ca lizctl; rm -r /root/ada")
        left = {path for path in machine.files() - before if not path.startswith("/etc/") or "lizmon" in path}
        self.assertEqual(left, set())
        self.assertEqual(machine.path("/etc/passwd").read_text(), passwords)

    def test_nobody_else_can_read_keys(self):
        machine = self.machine
        self.install("lizctl", "lizmon-ca", "lizmon-receiver", "lizmon-monitor")
        machine.sh(f"lizctl --certs {CA} init-ca", user="lizmon-ca")
        for user in ("lizmon", "lizmon-monitor", "nobody"):
            for key in ("root.key", "issuing.key"):
                self.assertIn("denied", machine.sh(f"cat {CA}/{key}", user=user, fails=True))
        for user, folder in (("lizmon-monitor", RECEIVER), ("lizmon", MONITOR), ("nobody", RECEIVER)):
            self.assertIn("denied", machine.sh(f"ls {folder}", user=user, fails=True))
        # Settings name secrets, and have none.
        for file in machine.path("/etc/lizmon").iterdir():
            self.assertEqual(file.stat().st_mode & 0o777, 0o644, file)
            self.assertEqual(file.stat().st_uid, 0, file)

    def test_links_lead_root_nowhere(self):
        """A service that was broken into must not become root by the next upgrade."""
        machine = self.machine
        self.install("lizctl", "lizmon-monitor")
        machine.sh("cd /var/lib/lizmon-monitor; rmdir certs; ln -s /etc/cron.d certs", user="lizmon-monitor")
        machine.sh("mkdir -p /etc/cron.d; stat -c '%U %a' /etc/cron.d > /root/was")
        self.install("lizctl", "lizmon-monitor", of=self.later)
        self.assertEqual(machine.sh("stat -c '%U %a' /etc/cron.d"), machine.path("/root/was").read_text())
        machine.sh("echo precious > /etc/cron.d/job; apt-get purge -y lizmon-monitor")
        self.assertEqual(machine.path("/etc/cron.d/job").read_text(), "precious\n")

    def test_data_elsewhere_outlives_a_purge(self):
        machine = self.machine
        machine.sh("mkdir -p /srv/metrics/certs; ln -s /srv/metrics /var/lib/lizmon-receiver")
        self.install("lizmon-receiver")
        self.assertTrue(machine.path("/var/lib/lizmon-receiver").is_symlink())
        machine.sh("echo precious > /srv/metrics/file; apt-get purge -y lizmon-receiver")
        self.assertEqual(machine.path("/srv/metrics/file").read_text(), "precious\n")
        self.assertFalse(machine.path("/var/lib/lizmon-receiver").is_symlink())

    def test_a_failed_installation_can_be_finished(self):
        machine = self.machine
        adduser = machine.path("/usr/sbin/adduser")
        text = adduser.read_text()
        adduser.write_text("#!/bin/sh\necho 'the user cannot be made' >&2\nexit 1\n")
        package = pathlib.Path(self.packages["lizmon-receiver"])
        run("cp", package, machine.path("/tmp"))
        said = machine.sh(f"dpkg --install /tmp/{package.name}", fails=True)
        self.assertIn("the user cannot be made", said)
        adduser.write_text(text)
        machine.sh("dpkg --configure -a")
        self.assertTrue(machine.path(RECEIVER).is_dir())
        self.assertIn("install ok installed", machine.sh("dpkg --status lizmon-receiver"))

    def test_receiver_and_summarizer_share_their_user(self):
        machine = self.machine
        self.install("lizmon-receiver", "lizmon-summarizer")
        machine.sh("apt-get purge -y lizmon-summarizer")
        machine.sh(f"ls {RECEIVER}", user="lizmon")
        machine.sh("apt-get purge -y lizmon-receiver")
        self.assertNotIn("lizmon", machine.path("/etc/passwd").read_text())

    def test_lintian_finds_no_error_and_no_warning(self):
        said = run("lintian", "--fail-on", "error,warning", "--allow-root", *self.packages.values())
        self.assertNotRegex(said, r"(?m)^[EW]:")

    def test_units_are_found_and_whole(self):
        self.install(*packages.PACKAGES)
        machine = self.machine
        for path in sorted((SOURCES / "deploy/systemd").iterdir()):
            self.assertTrue(machine.path(f"/usr/lib/systemd/system/{path.name}").exists(), path.name)
            run("systemd-analyze", "verify", "--man=no", f"--root={machine.root}", path.name)
            for word in Unit(path).get("ExecStart").split()[:1]:
                self.assertTrue(machine.path(word).exists(), word)
        for page in ("lizctl", "liz-receiver", "liz-monitor", "liz-ca", "liz-summarizer"):
            self.assertTrue(machine.path(f"/usr/share/man/man1/{page}.1.gz").exists(), page)


if __name__ == "__main__":
    unittest.main(verbosity=2)
