"""A Debian machine that is a folder: what is done on it is done in a chroot, and its services are
started as their units say. There is no systemd in it as process 1, which a chroot cannot have."""

import configparser
import glob
import os
import pathlib
import select
import shlex
import signal
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parent.parent
CACHE = SOURCES / "target" / "deploy"
ROOT = CACHE / "root"
RELEASE = "bookworm"
# Far more than anything needs.
PATIENCE = 60


def run(*command, **more):
    """Runs a program of this machine; its output is the result."""
    more.setdefault("stdout", subprocess.PIPE)
    more.setdefault("stderr", subprocess.STDOUT)
    more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run([str(part) for part in command], text=True, check=False, **more)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}")
    return done.stdout


def debian_root():
    """A small Debian, made once."""
    if not (ROOT / "made").exists():
        run("rm", "-rf", ROOT)
        ROOT.parent.mkdir(parents=True, exist_ok=True)
        run("debootstrap", "--variant=minbase", "--include=adduser,systemd", RELEASE, ROOT)
        (ROOT / "made").touch()
    return ROOT


class Unit:
    """A unit file as far as a start needs it."""

    def __init__(self, path):
        lines = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
        lines.optionxform = str
        lines.read(path)
        self.lines = lines
        self.name = path.name

    def get(self, key, section="Service", default=""):
        return self.lines.get(section, key, fallback=default)


class Machine:
    """A copy of the small Debian that is thrown away."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.root = self.folder / "root"
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        lower = f"lowerdir={debian_root()},upperdir={self.folder}/upper,workdir={self.folder}/work"
        run("mount", "-t", "overlay", "overlay", "-o", lower, self.root)
        run("mount", "-t", "proc", "proc", self.root / "proc")
        run("mount", "--rbind", "/dev", self.root / "dev")
        (self.root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        self.path("/etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        self.services = {}

    def close(self):
        for service in list(self.services):
            self.kill(service)
        for part in ("dev", "proc", ""):
            run("umount", "--lazy", self.root / part)

    def path(self, name):
        return self.root / name.lstrip("/")

    def sh(self, script, user=None, fails=False):
        """Runs a script on it, as a person would type it."""
        command = ["chroot", self.root]
        if user:
            group = "nogroup" if user == "nobody" else user
            command += ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups"]
        command += ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"]
        command += ["DEBIAN_FRONTEND=noninteractive", "sh", "-ec", script]
        if not fails:
            return run(*command)
        done = subprocess.run(
            [str(part) for part in command],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode != 0, f"{script}: it worked\n{done.stdout}"
        return done.stdout

    def install(self, *packages):
        for package in packages:
            run("cp", package, self.path("/tmp"))
        names = " ".join(f"/tmp/{pathlib.Path(package).name}" for package in packages)
        return self.sh(f"apt-get install -y {names}")

    def set(self, name, **settings):
        """Edits a file of settings: takes the comment sign off a line and changes its value."""
        path = self.path(f"/etc/lizmon/{name}.toml")
        lines = path.read_text().splitlines()
        for key, value in settings.items():
            key = key.replace("_", "-")
            places = [n for n, line in enumerate(lines) if line.lstrip("# ").startswith(f"{key} = ")]
            assert len(places) == 1, f"{key} is {len(places)} times in {path}"
            lines[places[0]] = f"{key} = {value}"
        path.write_text("\n".join(lines) + "\n")

    def unit(self, name):
        return Unit(self.path(f"/usr/lib/systemd/system/{name}"))

    def may_start(self, unit):
        """Whether the unit's conditions hold."""
        pattern = unit.get("ConditionPathExistsGlob", "Unit") or unit.get("ConditionPathExists", "Unit")
        assert pattern, unit.name
        return bool(glob.glob(str(self.path(pattern))))

    def start(self, name):
        """Starts a service by its unit, and waits for its READY=1."""
        unit = self.unit(f"{name}.service")
        assert self.may_start(unit), f"{name}: its condition does not hold"
        assert unit.get("Type") == "notify"
        user, folder = unit.get("User"), unit.get("WorkingDirectory")
        state = f"/var/lib/{unit.get('StateDirectory')}"
        if not self.path(state).exists():
            self.sh(f"install -d -o {user} -g {user} -m {unit.get('StateDirectoryMode')} {state}")
        notify = self.path(f"/run/{name}.notify")
        notify.unlink(missing_ok=True)
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.bind(str(notify))
        notify.chmod(0o666)
        told.setblocking(False)
        log = open(self.folder / f"{name}.log", "a", encoding="utf-8")
        start = shlex.split(unit.get("ExecStart"))
        watchdog = int(unit.get("WatchdogSec")) * 1_000_000
        command = ["chroot", self.root, "setpriv", f"--reuid={user}", f"--regid={unit.get('Group')}"]
        command += ["--init-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        command += ["env", "-i", "PATH=/usr/bin:/bin", f"NOTIFY_SOCKET=/run/{name}.notify"]
        command += [f"WATCHDOG_USEC={watchdog}", "sh", "-c", 'cd "$0" && umask 077 && exec "$@"', folder]
        process = subprocess.Popen(
            [str(part) for part in command + start],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self.services[name] = (process, told, log)
        self.wait(f"{name} is ready", lambda: self.hears(name, "READY=1"))

    def once(self, name):
        """Runs a service of Type=oneshot by its unit, to its end."""
        unit = self.unit(f"{name}.service")
        assert self.may_start(unit) and unit.get("Type") == "oneshot", name
        return self.sh(f"cd {unit.get('WorkingDirectory')}; {unit.get('ExecStart')}", user=unit.get("User"))

    def hears(self, name, word):
        process, told, _ = self.services[name]
        text = pathlib.Path(self.folder / f"{name}.log").read_text()
        assert process.poll() is None, f"{name} ended with {process.returncode}:\n{text}"
        if not select.select([told], [], [], 0.05)[0]:
            return False
        return word in told.recv(4096).decode()

    def stop(self, name):
        """SIGTERM, as systemd sends it; it must end cleanly."""
        process, told, log = self.services.pop(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, pathlib.Path(log.name).read_text()
        told.close()
        log.close()

    def kill(self, name):
        process, told, log = self.services.pop(name)
        process.kill()
        process.wait()
        told.close()
        log.close()

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            result = condition()
            if result:
                return result
            time.sleep(0.05)
        logs = [f"== {name}\n{(self.folder / f'{name}.log').read_text()}" for name in self.services]
        raise AssertionError(f"not in {PATIENCE} s: {what}\n" + "\n".join(logs))

    def files(self):
        """Every path on it but what dpkg and its caches keep about packages."""
        ignored = ("/proc", "/dev", "/run", "/tmp", "/var/lib/dpkg", "/var/log", "/var/cache", "/var/lib/apt")
        found = set()
        for folder, folders, names in os.walk(self.root):
            inside = "/" + os.path.relpath(folder, self.root)
            if inside.startswith(ignored):
                folders.clear()
                continue
            found.update(os.path.join(inside, name) for name in folders + names)
        return {path.replace("/./", "/") for path in found}
