"""systemctl for a test without systemd: starts the commands of units, with what the units say of user,
environment, folders, credentials and readiness. It is installed as /usr/bin/systemctl."""

import glob
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

READY_SECS = 60
STOP_SECS = 90


class Unit:
    def __init__(self, name):
        self.name = name
        places = [f"/etc/systemd/system/{name}", f"/lib/systemd/system/{name}", f"/usr/lib/systemd/system/{name}"]
        self.file = next((place for place in places if os.path.exists(place)), None)
        if self.file is None:
            sys.exit(f"Unit {name} not found.")
        self.values = {}
        for line in open(self.file):
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                self.values.setdefault(name, []).append(value)
        self.pid_file, self.exit_file = f"/run/{self.name}.pid", f"/run/{self.name}.exit"

    def one(self, key, default=None):
        return self.values.get(key, [default])[-1]

    def is_active(self):
        return os.path.exists(self.pid_file) and not os.path.exists(self.exit_file)

    def start(self):
        for key, exists in [("ConditionPathExists", os.path.exists), ("ConditionPathExistsGlob", glob.glob)]:
            for wanted in self.values.get(key, []):
                if not exists(wanted):
                    print(f"{self.name}: {key}={wanted} does not hold", file=sys.stderr)
                    return 0
        user = pwd.getpwnam(self.one("User", "root"))
        environment = {"PATH": os.environ["PATH"]}
        for file in self.values.get("EnvironmentFile", []):
            for line in open(file):
                name, _, value = line.strip().partition("=")
                environment[name] = " ".join(shlex.split(value))
        for folder in self.one("StateDirectory", "").split():
            os.makedirs(f"/var/lib/{folder}", 0o700, exist_ok=True)
            os.chown(f"/var/lib/{folder}", user.pw_uid, user.pw_gid)
        credentials = f"/run/credentials/{self.name}"
        for name in self.values.get("LoadCredential", []):
            source = f"/etc/credstore/{name}"
            if os.path.exists(source):
                os.makedirs(credentials, exist_ok=True)
                copy = shutil.copy(source, f"{credentials}/{name}")
                os.chmod(copy, 0o400)
                os.chown(copy, user.pw_uid, user.pw_gid)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = f"/run/{self.name}.notify"
        if os.path.exists(path):
            os.unlink(path)
        notify.bind(path)
        os.chmod(path, 0o777)
        is_notify = self.one("Type") == "notify"
        if is_notify:
            environment["NOTIFY_SOCKET"] = path
        if os.path.exists(self.exit_file):
            os.unlink(self.exit_file)
        self.run(user, environment)
        return self.wait_until_ready(notify) if is_notify else 0

    def run(self, user, environment):
        """A process of its own waits for the command, and records its end."""
        if os.fork():
            while not os.path.exists(self.pid_file):
                time.sleep(0.01)
            return
        os.setsid()
        with open(f"/var/log/{self.name}.log", "ab") as log, open(os.devnull) as nothing:
            process = subprocess.Popen(
                shlex.split(self.one("ExecStart")), stdin=nothing, stdout=log, stderr=log, env=environment,
                user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd=self.one("WorkingDirectory", "/"),
                umask=int(self.one("UMask", "022"), 8),
            )
            for name in (0, 1, 2):
                os.dup2(log.fileno() if name else nothing.fileno(), name)
            with open(f"{self.pid_file}.new", "w") as file:
                file.write(str(process.pid))
            os.rename(f"{self.pid_file}.new", self.pid_file)
            status = process.wait()
            with open(self.exit_file, "w") as file:
                file.write(str(status))
        os._exit(0)

    def wait_until_ready(self, notify):
        notify.settimeout(0.1)
        until = time.monotonic() + READY_SECS
        while time.monotonic() < until:
            try:
                if b"READY=1" in notify.recv(4096):
                    return 0
            except TimeoutError:
                if os.path.exists(self.exit_file):
                    break
        print(f"Job for {self.name} failed.", file=sys.stderr)
        return 1

    def stop(self):
        if not self.is_active():
            return 0
        os.kill(int(open(self.pid_file).read()), signal.SIGTERM)
        until = time.monotonic() + STOP_SECS
        while not os.path.exists(self.exit_file):
            if time.monotonic() > until:
                return 1
            time.sleep(0.05)
        return 0 if open(self.exit_file).read() == "0" else 1


def main(arguments):
    words = [word for word in arguments if not word.startswith("--")]
    if words == ["daemon-reload"]:
        return 0
    verb, unit = words[0], Unit(words[1])
    if verb == "enable" and "--now" in arguments:
        return unit.start()
    if verb == "stop":
        return unit.stop()
    if verb == "is-active":
        return 0 if unit.is_active() else 3
    sys.exit(f"systemctl: {arguments} is not known here")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
