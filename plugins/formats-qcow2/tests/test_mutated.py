# SPDX-License-Identifier: Apache-2.0
"""Images of every shape with fields changed, in the daemon and in the tools.

Nothing is asked of the answers but that they come, in time and without falling over, and
that no other file is written.  ``BLOCKYARD_MUTATIONS`` is how many images there are.
"""

import importlib.util
import json
import os
import random
import resource
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
PATIENCE = 60
ADDRESS_SPACE = 4 << 30
SECRET = ("--object", "secret,id=s,data=abc")
LUKS = "encrypt.format=luks,encrypt.key-secret=s"
SHAPES = ("", "compat=0.10", "extended_l2=on,cluster_size=16k", "cluster_size=512",
          "cluster_size=4k,refcount_bits=1", "refcount_bits=64", "compression_type=zstd",
          "lazy_refcounts=on", "backing_file=base.qcow2,backing_fmt=qcow2",
          f"{LUKS},encrypt.iter-time=1")  # fmt: skip
WORK = (("info", "--output=json"), ("info", "--backing-chain"), ("check",),
        ("check", "-r", "leaks"),
        ("check", "-r", "all"), ("amend", "-o", "compat=1.1"), ("amend", "-o", "refcount_bits=64"),
        ("amend", "-o", "compat=0.10"), ("resize", "+1M"), ("resize", "--shrink", "1M"),
        ("snapshot", "-l"), ("snapshot", "-c", "n"), ("snapshot", "-a", "one"),
        ("snapshot", "-d", "one"), ("rebase", "-b", ""),
        ("rebase", "-F", "qcow2", "-b", "base.qcow2"),
        ("measure", "-O", "qcow2"), ("map",), ("map", "--output=json"), ("bench", "-w", "-c", "20"),
        ("bitmap", "--add", None, "n"), ("bitmap", "--remove", None, "b"),
        ("bitmap", "--clear", None, "b"), ("compare", None, "base.qcow2"),
        ("convert", "-O", "raw", None, "out"), ("convert", "-c", "-O", "qcow2", None, "out"),
        ("convert", "--bitmaps", "-O", "qcow2", None, "out"),
        ("dd", "bs=64k", "count=20", "of=out"),
        )  # fmt: skip


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage, fields, served = load("damage"), load("fields"), load("served")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, qemu_io):
    found = served.Daemon(tmp_path_factory.mktemp("daemon"), qemu_io)
    yield found
    found.end()


@pytest.fixture(scope="module")
def base(tmp_path_factory, qemu_img, qemu_io):
    """A good image that others are compared with, and that must stay as it is."""
    path = tmp_path_factory.mktemp("base") / "base.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "6M")
    qemu_io(path, "write -P 7 1M 3M")
    return path.read_bytes()


@pytest.fixture
def image(tmp_path, base, qemu_img, qemu_io):
    """``image(shape)``: one with data, and with snapshots and bitmaps where it can have them."""

    def make(shape):
        (tmp_path / "base.qcow2").write_bytes(base)
        path = tmp_path / "a.qcow2"
        words = ["-o", shape] if shape else []
        qemu_img("create", "-q", "-f", "qcow2", *SECRET, *words, path, "8M", cwd=tmp_path)
        if LUKS in shape:
            return damage.Image(path)
        qemu_io(path, "write -P 1 0 300k", "write -c -P 2 2M 64k", "write -z 1M 100k")
        if "refcount_bits=1" not in shape:
            qemu_img("snapshot", "-c", "one", path)
        if "compat=0.10" not in shape:
            qemu_img("bitmap", "--add", path, "b")
        qemu_io(path, "write -P 3 250k 90k")
        return damage.Image(path)

    return make


def worked_on(path, shape, work):
    """What ``blockyard-img`` does to the image; it must not fall over."""
    name = f"driver=qcow2,file.filename={path},{LUKS}" if LUKS in shape else str(path)
    opts = [*SECRET, "--image-opts"] if LUKS in shape else []
    words = [name if word is None else word for word in work[1:]]
    if None not in work:
        words += [f"if={name}" if work[0] == "dd" else name]
    if work[0] == "resize":
        words[-2:] = reversed(words[-2:])
    done = subprocess.run(
        [SCRIPTS / "blockyard-img", work[0], *opts, *words],
        capture_output=True, cwd=path.parent, timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE,) * 2),
    )  # fmt: skip
    assert done.returncode >= 0, done
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    if "--output=json" in work and done.returncode == 0:
        json.loads(done.stdout)


@pytest.mark.parametrize("seed", range(int(os.environ.get("BLOCKYARD_MUTATIONS", "12"))))
def test_mutated_images_get_an_answer(seed, image, base, daemon, tmp_path):
    chance = random.Random(seed)
    shape = SHAPES[seed % len(SHAPES)]
    found = image(shape)
    told = fields.Fields(found).mutate(chance)
    bad = found.path.read_bytes()
    options = {"encrypt": {"format": "luks", "key-secret": "s"}} if LUKS in shape else {}
    daemon.use(found.path, **options)
    for work in chance.sample(WORK, 3):
        found.path.write_bytes(bad)
        worked_on(found.path, shape, work)
    assert (tmp_path / "base.qcow2").read_bytes() == base, told
    assert "Traceback" not in (daemon.folder / "log").read_text()
