# SPDX-License-Identifier: Apache-2.0
"""Drivers for tests of the graph: storage, a filter and a format, all in memory.

They keep book of what the graph asked of their permissions, so that a test can
see that each prepare met exactly one commit or abort.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from blockyard.errors import BlockyardError
from blockyard.node import ChildSpec, DriverType, Opened, PythonDriver
from blockyard.permission import ALL, NONE, Perm, Role
from blockyard.plugins import Registry
from blockyard.request import Preallocation, RequestFlags
from blockyard.schema import Size, struct
from blockyard.schema.block import BlockdevRef, BlockdevRefOrNull
from blockyard.yard import Yard


@struct
class OptionsMem:
    """Options of the storage driver."""

    size: Size | None = None
    #: What the driver refuses: ``open``, ``check`` (permissions), ``prepare`` (reopen).
    fails: str | None = None


@struct
class OptionsOver:
    """Options of the filter."""

    file: BlockdevRef


@struct
class OptionsForm:
    """Options of the format."""

    file: BlockdevRef
    backing: BlockdevRefOrNull | None = None
    version: int | None = None


class Keeping(PythonDriver):
    """A driver that keeps book; ``held`` is what was committed last."""

    #: How many are open in the process.
    alive = 0

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self.held = (NONE, ALL)
        self.prepared: tuple[Perm, Perm] | None = None

    async def check_permissions(self, perm: Perm, shared: Perm) -> None:
        assert self.prepared is None
        if getattr(self.options, "fails", None) == "check" and perm & Perm.WRITE:
            raise BlockyardError("check refused")
        self.prepared = (perm, shared)

    async def set_permissions(self, perm: Perm, shared: Perm) -> None:
        assert self.prepared == (perm, shared)
        self.held, self.prepared = self.prepared, None

    async def abort_permissions(self) -> None:
        assert self.prepared is not None
        self.prepared = None

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        if getattr(options, "fails", None) == "prepare":
            raise BlockyardError("prepare refused")

    async def close(self) -> None:
        Keeping.alive -= 1


class MemDriver(Keeping):
    """Bytes in memory."""

    type = DriverType(
        name="mem",
        kind="protocol",
        options=OptionsMem,
        implementation="",
        mutable_options=("fails",),
    )

    async def open(self) -> Opened:
        if self.options.fails == "open":
            raise BlockyardError("open refused")
        self.memory = bytearray(self.options.size if self.options.size is not None else 65536)
        Keeping.alive += 1
        #: Reads wait for it.
        self.gate = threading.Event()
        self.gate.set()
        return Opened(length=len(self.memory))

    async def read(self, offset: int, length: int) -> bytes:
        while not self.gate.is_set():
            await asyncio.sleep(0.001)
        return bytes(self.memory[offset : offset + length])

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        self.memory[offset : offset + len(view)] = view

    async def truncate(self, length: int, prealloc: Preallocation, exact: bool) -> None:
        del self.memory[length:]
        self.memory.extend(bytes(length - len(self.memory)))


class OverDriver(Keeping):
    """A filter that forwards."""

    type = DriverType(
        name="over",
        kind="filter",
        options=OptionsOver,
        implementation="",
        children=(ChildSpec(name="file", role=Role.FILTER),),
    )

    async def open(self) -> Opened:
        Keeping.alive += 1
        return Opened(length=self.node.children["file"].node.length)

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        pass


class FormDriver(OverDriver):
    """A format with metadata and a backing file."""

    type = DriverType(
        name="form",
        kind="format",
        options=OptionsForm,
        implementation="",
        children=(
            ChildSpec(name="file", role=Role.IMAGE),
            ChildSpec(name="backing", role=Role.COW, optional=True),
        ),
        mutable_options=("version",),
        supports_backing=True,
    )


DRIVERS = {driver.type.name: driver for driver in (MemDriver, OverDriver, FormDriver)}


@pytest.fixture
def registry() -> Registry:
    """A registry of the drivers above and nothing that is installed but core's own."""
    return make_registry()


def make_registry() -> Registry:
    made = Registry(only="")
    for name, driver in DRIVERS.items():
        made.add("drivers", name, driver)
    return made


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both event loops."""
    return str(request.param)


@pytest.fixture
async def yard(registry: Registry) -> AsyncIterator[Yard]:
    """A yard with those drivers, that has to leave nothing open."""
    before = Keeping.alive
    async with Yard(registry=registry) as made:
        yield made
    assert Keeping.alive == before
