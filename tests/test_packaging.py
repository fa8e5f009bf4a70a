# SPDX-License-Identifier: Apache-2.0
"""What `pip install ./core ./plugins/...` gives in a fresh virtual environment."""

import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(p.parent for p in ROOT.glob("plugins/*/pyproject.toml"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with wheels of everything, built in isolation."""
    folder = tmp_path_factory.mktemp("packaging")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    sources = [str(ROOT / "core"), *map(str, PLUGINS)]
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheels", *sources)
    wheels = sorted((folder / "wheels").glob("*.whl"))
    run(python, "-m", "pip", "install", "-q", *wheels)
    return folder


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheels_serve_every_later_python_and_hold_no_sources(environment: Path) -> None:
    wheels = list((environment / "wheels").glob("*.whl"))
    assert len(wheels) == 1 + len(PLUGINS)
    for wheel in wheels:
        names = run(sys.executable, "-m", "zipfile", "-l", wheel)
        assert ".c " not in names
        assert "tests/" not in names
        assert "py.typed" in names
        if ".so " in names:
            assert "abi3" in wheel.name


def test_the_plugins_are_found(environment: Path) -> None:
    listed = json.loads(run(environment / "venv/bin/blockyard", "plugins", "--json"))
    found = {record["name"] for record in listed}
    assert {
        "file",
        "host_device",
        "host_cdrom",
        "null-co",
        "null-aio",
        "qcow2",
        "raw",
        "nbd",
        "fuse",
        "luks",
        "secret",
        "blklogwrites",
        "copy-on-read",
        "compress",
        "preallocate",
        "quorum",
        "throttle",
        "throttle-group",
    } <= found


def test_the_daemon_starts(environment: Path) -> None:
    assert "lockyard" in run(environment / "venv/bin/blockyard-daemon", "--version")


def test_all_names_every_plugin_of_the_tree() -> None:
    core = tomllib.loads((ROOT / "core/pyproject.toml").read_text())
    wanted = [f"blockyard-{plugin.name}" for plugin in PLUGINS]
    assert core["project"]["optional-dependencies"]["all"] == wanted
