"""Debian packages of the built programs."""

import gzip
import os
import shutil

from machine import CACHE, SOURCES, run

# The package, its crate, its variant there.
PACKAGES = {
    "lizctl": ("lizctl", None),
    "lizmon-ca": ("lizmon-ca", None),
    "lizmon-monitor": ("lizmon-monitor", None),
    "lizmon-receiver": ("lizmon-receiver", None),
    "lizmon-summarizer": ("lizmon-receiver", "summarizer"),
}
PROGRAMS = ("lizctl", "liz-ca", "liz-monitor", "liz-receiver", "liz-summarizer")
PROFILE = os.environ.get("LIZMON_DEPLOY_PROFILE", "dist")
# cargo-deb looks for programs in `release`, whatever profile they were built with.
STAGE = CACHE / "stage"


def stage_programs():
    """The stripped programs; their pages and completions are where the packages take them from."""
    built = SOURCES / "target" / PROFILE
    folder = STAGE / "release"
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        if not is_newer(built / name, folder / name):
            continue
        run("strip", "-o", folder / f"{name}.new", built / name)
        (folder / f"{name}.new").rename(folder / name)
    man, completions = CACHE / "man", CACHE / "completions"
    for made in (man, completions):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    for name in PROGRAMS:
        run(folder / name, "man", man)
    for shell, file in (("bash", "lizctl"), ("zsh", "_lizctl"), ("fish", "lizctl.fish")):
        (completions / file).write_text(run(folder / "lizctl", "completions", shell) + "\n")
    changelog = (SOURCES / "deploy/debian/changelog").read_bytes()
    (CACHE / "changelog.gz").write_bytes(gzip.compress(changelog, mtime=0))
    return folder


def is_newer(source, copy):
    return not copy.exists() or source.stat().st_mtime > copy.stat().st_mtime


def build(version=None):
    """The packages of these programs, by name."""
    stage_programs()
    tool = SOURCES / "target/tools/cargo-deb/bin/cargo-deb"
    folder = CACHE / (f"packages-{version}" if version else "packages")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = {}
    for package, (crate, variant) in PACKAGES.items():
        made[package] = folder / f"{package}.deb"
        command = [tool, "deb", "--package", crate, "--no-build", "--no-strip", "--compress-system"]
        command += ["--output", made[package]]
        if variant:
            command += ["--variant", variant]
        if version:
            command += ["--deb-version", version]
        if version or PROFILE == "debug":
            command += ["--fast"]
        run(*command, cwd=SOURCES, env={**os.environ, "CARGO_TARGET_DIR": str(STAGE)})
    return made
