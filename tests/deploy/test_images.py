"""The images, and a first sample by the programs in them."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import images
from images import Mounted, buildah, config
from machine import PATIENCE, run

USER = 65532


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images, cls.bases = images.build_all()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lizmon-image-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.processes = []
        self.addCleanup(self.end)

    def end(self):
        # What buildah started outlives it. No other process of this namespace has such a name.
        for link in pathlib.Path("/proc").glob("[0-9]*/exe"):
            try:
                if link.readlink().name in images.TARGETS:
                    os.kill(int(link.parent.name), signal.SIGKILL)
            except OSError:
                continue
        for process in self.processes:
            process.kill()
            process.wait()

    def test_an_image_has_a_program_and_what_it_needs(self):
        allowed = {f"/{library}" for library in images.LIBRARIES} | {"/etc/passwd"}
        for target, image in self.images.items():
            mounted = Mounted(image)
            found = set()
            for folder, _, names in os.walk(mounted.root):
                found |= {"/" + os.path.relpath(os.path.join(folder, name), mounted.root) for name in names}
            mounted.close()
            self.assertEqual(found - allowed, {f"/usr/bin/{target}"})
            print(f"\n{target}: {images.size(image)}", end="")

    def test_an_image_says_how_it_is_run(self):
        for target, image in self.images.items():
            found = config(image)
            self.assertEqual(found["User"], f"{USER}:{USER}", target)
            self.assertEqual(found["Entrypoint"], [f"/usr/bin/{target}"])
            self.assertEqual(found["Labels"]["org.opencontainers.image.title"], "lizmon")
            check = found["Healthcheck"]["Test"]
            expected = ["NONE"] if target == "lizctl" else ["CMD", f"/usr/bin/{target}", "health"]
            self.assertEqual(check, expected)

    def test_the_same_sources_make_the_same_layers(self):
        # Of the image's configuration this buildah makes some numbers up.
        again = images.build("liz-monitor", self.bases, "--no-cache")
        self.assertEqual(images.layers(again), images.layers(self.images["liz-monitor"]))

    def command(self, target, volumes, *arguments):
        container = buildah("from", "--quiet", "--pull-never", self.images[target], stderr=None).split()[-1]
        self.addCleanup(buildah, "rm", container)
        command = ["buildah", *images.STORAGE, "run", "--isolation", "chroot", "--user", f"{USER}:{USER}"]
        for inside, name in volumes.items():
            folder = self.folder / name
            if not folder.exists():
                folder.mkdir(mode=0o700)
                os.chown(folder, USER, USER)
            command += ["--volume", f"{folder}:{inside}"]
        command += [container, "--", *config(self.images[target])["Entrypoint"], *arguments]
        return [str(part) for part in command]

    def done(self, *command):
        return run(*self.command(*command), stderr=None)

    def start(self, *command):
        log = open(self.folder / f"{command[0]}.log", "w+", encoding="utf-8")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            self.command(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self.processes.append(process)
        self.wait(lambda: "READY" in pathlib.Path(log.name).read_text(), log.name, process)

    def wait(self, condition, log, process=None):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            if process and process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(pathlib.Path(log).read_text())

    def test_a_first_sample_arrives(self):
        home, out = "/var/lib/lizmon", "/out"
        self.done("lizctl", {home: "ca"}, "init-ca", "--if-missing")
        self.done("lizctl", {home: "ca"}, "init-ca", "--if-missing")
        receiver = ("issue-receiver", "rx1", "--san", "localhost", "--out", out, "--if-missing")
        self.done("lizctl", {home: "ca", out: "rx"}, *receiver)
        certificate = (self.folder / "rx/rx1.crt").read_bytes()
        self.done("lizctl", {home: "ca", out: "rx"}, *receiver)
        self.assertEqual((self.folder / "rx/rx1.crt").read_bytes(), certificate)
        self.done("lizctl", {home: "ca", out: "web1"}, "issue-node", "web1", "--out", out)
        self.done("lizctl", {home: "ca", out: "ada"}, "issue-reader", "ada", "--out", out)
        self.start("liz-ca", {home: "ca"}, "--san", "localhost")
        own = ("--cert", "rx1.crt", "--key", "rx1.key", "--ca", "root.crt", "--crl", "crl.pem")
        self.start("liz-receiver", {home: "rx"}, *own)
        node = ("--cert", "web1.crt", "--key", "web1.key", "--ca", "root.crt")
        publish = ("--this-host", "web1", "--publish", "https://localhost:8443/api/perf")
        self.start("liz-monitor", {home: "web1"}, *publish, *node)
        ask = ("--receiver", "https://localhost:8443", "--cert", "ada.crt", "--key", "ada.key", "--ca", "root.crt")
        query = self.command("lizctl", {home: "ada"}, "query", "web1", "cpu", "--json", *ask)

        def samples():
            said = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
            return said and json.loads(said).get("summary:by-minute:cpu")

        self.wait(samples, self.folder / "liz-monitor.log")
