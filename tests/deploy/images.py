"""Images of the Dockerfile, built from bases that are made here: there is no registry."""

import json
import pathlib
import shutil

import packages
from machine import CACHE, SOURCES, debian_root, run

TARGETS = ("lizctl", "liz-ca", "liz-monitor", "liz-receiver", "liz-summarizer")
STORAGE = ("--root", CACHE / "storage", "--runroot", "/run/lizmon-storage", "--storage-driver", "overlay")
# All that the programs need of a system.
LIBRARIES = (
    "lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libm.so.6",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
)
# The programs are compiled once, outside: this is what `cargo build` leaves behind.
CARGO = """#!/bin/sh
set -e
while [ $# -gt 1 ]; do
    if [ "$1" = --profile ]; then profile=$2; fi
    shift
done
mkdir -p "target/$profile"
cp /programs/* "target/$profile/"
"""


def buildah(*command, **more):
    return run("buildah", *STORAGE, *command, **more)


def base(name, fill):
    """An image that is made from a folder."""
    container = buildah("from", "--quiet", "scratch", stderr=None).strip().splitlines()[-1]
    fill(pathlib.Path(buildah("mount", container).strip().splitlines()[-1]))
    buildah("umount", container)
    buildah("commit", "--quiet", "--rm", "--timestamp", "0", container, name)
    return f"localhost/{name}"


def fill_runtime(root):
    for folder in ("lib64", "lib/x86_64-linux-gnu", "etc", "tmp", "dev", "proc", "sys", "usr/bin", "run"):
        (root / folder).mkdir(parents=True)
    for library in LIBRARIES:
        shutil.copy(resolved(debian_root() / library), root / library)
    (root / "etc/passwd").write_text("nonroot:x:65532:65532::/var/lib/lizmon:/sbin/nologin\n")


def resolved(path):
    """A link of the small Debian leads to places in it."""
    while path.is_symlink():
        target = path.readlink()
        path = debian_root() / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    return path


def fill_builder(root):
    run("cp", "-a", f"{debian_root()}/.", root)
    cargo = root / "usr/local/bin/cargo"
    cargo.write_text(CARGO)
    cargo.chmod(0o755)
    (root / "programs").mkdir()
    for program in packages.stage_programs().iterdir():
        shutil.copy(program, root / "programs")


def build_all():
    """The image of each target."""
    bases = {"RUNTIME": base("lizmon-test-runtime", fill_runtime)}
    bases["BUILDER"] = base("lizmon-test-builder", fill_builder)
    return {target: build(target, bases) for target in TARGETS}, bases


def build(target, bases, *more):
    command = ["build", "--quiet", "--format", "docker", "--isolation", "chroot", "--pull-never"]
    command += ["--timestamp", "0", "--layers", "--target", target, "--tag", f"lizmon-{target}"]
    for name, image in bases.items():
        command += ["--build-arg", f"{name}={image}"]
    command += ["--ignorefile", SOURCES / ".dockerignore", "--file", SOURCES / "deploy/Dockerfile"]
    return buildah(*command, *more, SOURCES).strip().splitlines()[-1]


def config(image):
    """What the image says of itself."""
    return json.loads(buildah("inspect", "--type", "image", image, stderr=None))["Docker"]["config"]


def layers(image):
    found = json.loads(buildah("inspect", "--type", "image", image, stderr=None))
    return found["OCIv1"]["rootfs"]["diff_ids"]


def size(image):
    found = json.loads(buildah("images", "--json", image, stderr=None))
    return found[0]["size"]


class Mounted:
    """The files of an image, for a while."""

    def __init__(self, image):
        self.container = buildah("from", "--quiet", "--pull-never", image, stderr=None).strip().splitlines()[-1]
        self.root = pathlib.Path(buildah("mount", self.container).strip().splitlines()[-1])

    def close(self):
        buildah("umount", self.container)
        buildah("rm", self.container)
