# SPDX-License-Identifier: Apache-2.0
"""QEMU's programs, which images are exchanged with, a storage daemon to be asked, native tests."""

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import anyio.from_thread
import pytest

from blockyard import Yard
from blockyard.entrypoints import implementation
from blockyard.schema import visit
from blockyard.schema.block import BlockdevCreateOptions
from blockyard.schema.qom import ObjectOptions


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    """What builds and runs the programs in native/: one Builder for all tests."""
    path = Path(__file__).parent / "native/native_builds.py"
    spec = importlib.util.spec_from_file_location("native_builds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Builder(tmp_path_factory.mktemp("native"))


def find_program(name, variable):
    path = os.environ.get(variable) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture(scope="session")
def qemu_img():
    """``qemu_img("create", ...)``: its output; AssertionError when it fails."""
    program = find_program("qemu-img", "BLOCKYARD_QEMU_IMG")

    def call(*words, ok=True, **options):
        done = subprocess.run(
            [program, *map(str, words)], capture_output=True, text=True, timeout=120, **options
        )
        assert not ok or done.returncode == 0, f"qemu-img {words}: {done.stdout}{done.stderr}"
        return done.stdout if ok else done

    return call


@pytest.fixture(scope="session")
def qemu_io():
    """``qemu_io(image, "write 0 64k", ...)``: its output."""
    program = find_program("qemu-io", "BLOCKYARD_QEMU_IO")

    def call(image, *commands, options=(), ok=True):
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(
            [program, *map(str, options), *words, str(image)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert not ok or done.returncode == 0, f"{commands}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return call


class Peer:
    """A running qemu-storage-daemon."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "--chardev", "stdio,id=c", "--monitor", "chardev=c"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        greeting = json.loads(self.process.stdout.readline())
        numbers = greeting["QMP"]["version"]["qemu"]
        self.version = (numbers["major"], numbers["minor"])
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """The answer's ``return``, or its ``error``'s text after ``error:``."""
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        while True:
            answer = json.loads(self.process.stdout.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                return "error:" + answer["error"]["desc"]

    def refusal(self, **options):
        """Why blockdev-add refuses the options, or None; nothing is left open."""
        answer = self.ask("blockdev-add", **{"node-name": "asked", **options})
        if isinstance(answer, str):
            return answer.removeprefix("error:")
        self.ask("blockdev-del", **{"node-name": "asked"})
        return None

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def peer():
    """A qemu-storage-daemon to compare with."""
    found = Peer(find_program("qemu-storage-daemon", "BLOCKYARD_QSD"))
    yield found
    found.end()


class Place:
    """A yard on a thread of its own, called from tests that are not asynchronous."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.portal = self.stack.enter_context(anyio.from_thread.start_blocking_portal())
        self.yard = self.stack.enter_context(self.portal.wrap_async_context_manager(Yard()))

    def ask(self, function, *args, **more):
        """The answer of a function, asynchronous or not, in the yard's thread."""
        return self.portal.call(functools.partial(function, *args, **more))

    def add_object(self, **options):
        """object-add."""
        self.ask(self.yard.objects.add, visit(ObjectOptions, dashed(options)))

    @contextlib.contextmanager
    def open(self, options=None, /, **more):
        """An image, closed at the end; ``ask(image.read, ...)`` uses it."""
        image = self.ask(self.yard.open, options, **more)
        try:
            yield image
        finally:
            self.ask(image.close)

    def create(self, driver, **options):
        """blockdev-create, to its end; children are given in full."""
        given = visit(BlockdevCreateOptions, {"driver": driver, **dashed(options)})
        made = implementation(self.yard.registry.driver(driver))
        self.ask(made.create, given.u, self.yard)


def dashed(options):
    return {name.replace("_", "-"): value for name, value in options.items()}


@pytest.fixture(scope="module")
def place():
    """One yard for the tests of a file."""
    found = Place()
    yield found
    found.stack.close()
