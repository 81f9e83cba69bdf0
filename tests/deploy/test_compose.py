"""compose.yaml, read from the file and started as it says: each service in a network namespace of its
own, in the files of its image. Redis and nginx are Debian's."""

import ipaddress
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import yaml

import images
from machine import PATIENCE, SOURCES, run

FILE = SOURCES / "deploy/compose.yaml"
OURS = {f"lizmon-{name.removeprefix('liz-')}": name for name in images.TARGETS}
# Debian's nginx loads this module from a file, the image of nginx has it built in.
NGINX = ["-g", "load_module /usr/lib/nginx/modules/ngx_stream_module.so; daemon off;"]
ENTER = pathlib.Path(__file__).with_name("enter.py")


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.images, _ = images.build_all()
        cls.file = yaml.safe_load(FILE.read_text())

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lizmon-compose-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.running, self.finished, self.addresses = {}, set(), {}
        self.addCleanup(self.down)
        run("mkdir", "-p", "/run/netns")
        subnet = self.file["networks"]["lizmon"]["ipam"]["config"][0]["subnet"]
        free = [str(address) for address in ipaddress.ip_network(subnet).hosts()]
        run("ip", "link", "add", "lizmon", "type", "bridge")
        run("ip", "addr", "add", f"{free.pop(0)}/24", "dev", "lizmon")
        run("ip", "link", "set", "lizmon", "up")
        fixed = {name: self.fixed_address(service) for name, service in self.file["services"].items()}
        free = [address for address in free if address not in fixed.values()]
        hosts = "127.0.0.1 localhost\n"
        for name, address in fixed.items():
            self.addresses[name] = address or free.pop(0)
            hosts += f"{self.addresses[name]} {name}\n"
        self.hosts = self.folder / "hosts"
        self.hosts.write_text(hosts)

    def fixed_address(self, service):
        networks = service.get("networks", {})
        return networks["lizmon"]["ipv4_address"] if isinstance(networks, dict) and networks else None

    def down(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        run("sh", "-c", f"grep -o ' {self.folder}[^ ]* ' /proc/mounts | tac | xargs -r -n 1 umount -l")
        for name in self.addresses:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)
        run("ip", "link", "delete", "lizmon")

    def network(self, name):
        """A namespace with an address on the bridge, as Compose gives each container."""
        if pathlib.Path(f"/run/netns/{name}").exists():
            return
        outside = f"v{self.addresses[name].rsplit('.', 1)[1]}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", outside, "master", "lizmon", "up")
        run("ip", "-n", name, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")

    def volumes(self, service):
        for volume in service.get("volumes", []):
            name, inside = volume.split(":")
            folder = self.folder / "volumes" / name
            if not folder.exists():
                # As a new volume it gets the owner of the image's folder.
                folder.mkdir(parents=True, mode=0o700)
                os.chown(folder, 65532, 65532)
            yield folder, inside

    def ours(self, name, service, more):
        """The command, and the variables, of a service with an image of ours."""
        image = self.images[OURS[service["image"]]]
        config = images.config(image)
        root = self.folder / "roots" / f"{name}-{len(list((self.folder).glob('roots/*')))}"
        root.mkdir(parents=True)
        mounted = images.Mounted(image)
        self.addCleanup(images.buildah, "rm", mounted.container)
        run("mount", "--bind", mounted.root, root)
        run("mount", "--bind", self.hosts, self.etc_hosts(root))
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        run("mount", "-o", "remount,bind,ro", root)
        run("mount", "-t", "proc", "proc", root / "proc")
        run("mount", "-t", "tmpfs", "dev", root / "dev")
        for device in ("null", "urandom"):
            (root / "dev" / device).touch()
            run("mount", "--bind", f"/dev/{device}", root / "dev" / device)
        (root / "dev/shm").mkdir(mode=0o1777)
        (root / "dev/shm").chmod(0o1777)
        for folder, inside in self.volumes(service):
            run("mount", "--bind", folder, root / inside.lstrip("/"))
        variables = dict(pair.split("=", 1) for pair in config.get("Env", []))
        variables |= service.get("environment", {})
        command = more or service.get("command", [])
        start = ["python3", ENTER, root, config["User"], config["WorkingDir"]]
        return start + config["Entrypoint"] + command, variables

    def etc_hosts(self, root):
        # A container manager makes this file: it is in no image.
        path = root / "etc/hosts"
        path.touch()
        return path

    def theirs(self, name, service):
        """Redis and nginx, with the files that the container would have."""
        program = service["command"][0]
        command = list(service["command"])
        for folder, inside in self.volumes(service):
            os.chown(folder, *map(int, service["user"].split(":")))
            self.assertEqual(inside, "/data")
            command += ["--dir", str(folder), "--protected-mode", "no"]
        for wanted in service.get("configs", []):
            content = self.file["configs"][wanted["source"]]["content"]
            path = self.folder / f"{name}.conf"
            path.write_text(content.replace("/tmp/", f"{self.folder}/"))
            command[command.index(wanted["target"])] = str(path)
        if program == "redis-server":
            # Debian's redis-tools has the server by another name.
            command[0] = str(self.folder / program)
            os.symlink("/usr/bin/redis-check-rdb", command[0])
        if program == "nginx":
            at = command.index("-g")
            command[at : at + 2] = NGINX
        netns = pathlib.Path(f"/etc/netns/{name}")
        netns.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.hosts, netns / "hosts")
        self.addCleanup(shutil.rmtree, netns)
        return command, {"PATH": os.environ["PATH"]}

    def launch(self, name, more=None):
        service = self.file["services"][name]
        self.network(name)
        if service["image"] in OURS:
            command, variables = self.ours(name, service, more)
        else:
            command, variables = self.theirs(name, service)
        log = open(self.folder / f"{name}.log", "a", encoding="utf-8")
        self.addCleanup(log.close)
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *map(str, command)],
            env={"PATH": os.environ["PATH"], **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if more else log,
            stderr=log,
        )

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def is_healthy(self, name):
        """What the image's health check says, in the container."""
        service = self.file["services"][name]
        check = images.config(self.images[OURS[service["image"]]])["Healthcheck"]["Test"][1:]
        root = [part for part in map(str, self.running[name].args) if "/roots/" in part][0]
        command = ["python3", ENTER, root, "65532:65532", "/", *check]
        env = {"LIZMON_HEALTH_FILE": "/dev/shm/lizmon-health"}
        return subprocess.run(list(map(str, command)), env=env, capture_output=True, check=False).returncode == 0

    def fulfilled(self, service):
        for other, wanted in service.get("depends_on", {}).items():
            condition = wanted["condition"]
            if condition == "service_completed_successfully" and other not in self.finished:
                return False
            if condition == "service_started" and other not in self.running:
                return False
            if condition == "service_healthy" and not (other in self.running and self.is_healthy(other)):
                return False
        return True

    def up(self):
        """As `docker compose up` orders them."""
        waiting = {
            name: service
            for name, service in self.file["services"].items()
            if "profiles" not in service and name not in self.running
        }
        end = time.monotonic() + PATIENCE
        while waiting:
            self.assertLess(time.monotonic(), end, f"{set(waiting)} still wait\n" + self.all_logs())
            for name in [name for name, service in waiting.items() if self.fulfilled(service)]:
                process = self.launch(name)
                if "restart" in waiting.pop(name):
                    self.running[name] = process
                else:
                    self.assertEqual(process.wait(PATIENCE), 0, self.log(name))
                    self.finished.add(name)
            for name, process in self.running.items():
                self.assertIsNone(process.poll(), f"{name} ended:\n{self.log(name)}")
            time.sleep(0.05)

    def all_logs(self):
        return "\n".join(f"== {path.stem}\n{path.read_text()}" for path in self.folder.glob("*.log"))

    def query(self, *arguments):
        process = self.launch("lizctl", list(arguments))
        said = process.communicate(timeout=PATIENCE)[0]
        return json.loads(said) if process.returncode == 0 else None

    def samples(self):
        found = self.query("query", "this-machine", "cpu", "--json") or {}
        parts = found.get("summary:by-minute:cpu", {}).get("averages", [])
        return sum(part["num-samples"] for part in parts)

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, self.all_logs())
            time.sleep(0.1)

    def test_it_comes_up_from_an_empty_folder_and_again(self):
        self.up()
        self.wait(lambda: self.samples() > 0)
        for name in ("ca", "rx1", "rx2", "sum1", "sum2", "monitor"):
            self.assertTrue(self.is_healthy(name), name)
        # One receiver and one summarizer go: nobody notices.
        for name in ("rx1", "sum1"):
            process = self.running.pop(name)
            process.terminate()
            self.assertEqual(process.wait(PATIENCE), 0, self.log(name))
        before = self.samples()
        self.wait(lambda: self.samples() > before)
        # `up` once more: what is there stays.
        certificate = self.folder / "volumes/rx1/rx1.crt"
        before, self.finished = certificate.read_bytes(), set()
        self.up()
        self.assertEqual(certificate.read_bytes(), before)
        self.wait(lambda: self.is_healthy("rx1"))

    def test_the_keys_of_the_ca_are_in_one_volume(self):
        """And that is mounted by the CA, and by what issues certificates and ends."""
        for name, service in self.file["services"].items():
            mounts = [volume.split(":")[0] for volume in service.get("volumes", [])]
            if "ca" in mounts and name != "ca":
                self.assertNotIn("restart", service, name)
                self.assertRegex(service["command"][0], "^(init-ca|issue-)")
