# SPDX-License-Identifier: Apache-2.0
"""A yard with an NBD server in a thread, driven as by a monitor, and clients for it."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from blockyard.qmp.dispatcher import Dispatcher
from blockyard.yard import Yard

HERE = Path(__file__).parent
DATA = 1 << 20
SIZE = 4 << 20


def _load(name):
    """A module beside this one, for importlib mode has no path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


raw_client = _load("raw_client")


class Server:
    """An NBD server on a unix socket; exports ``disk`` (a file), ``ro`` and ``null``."""

    def __init__(self, portal, yard, folder):
        self.portal = portal
        self.yard = yard
        self.dispatcher = Dispatcher(yard, yard.registry)
        self.clients = []
        self.path = str(folder / "nbd.sock")
        self.image = folder / "disk.img"
        self.content = os.urandom(DATA) + bytes(SIZE - DATA)
        self.image.write_bytes(self.content[:DATA])
        os.truncate(self.image, SIZE)

    def execute(self, command, /, **arguments):
        args = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.portal.call(self.dispatcher.execute, command, args)

    def listen(self, **options):
        address = {"type": "unix", "data": {"path": self.path}}
        return self.execute("nbd-server-start", **{"addr": address, **options})

    def add_nodes(self):
        self.execute("blockdev-add", driver="file", filename=str(self.image), node_name="disk")
        self.execute(
            "blockdev-add", driver="null-co", size=1 << 40, read_zeroes=True, node_name="null"
        )

    def export(self, node, name=None, **options):
        name = name or node
        return self.execute(
            "block-export-add", type="nbd", id=name, node_name=node, name=name, **options
        )

    def standard(self):
        self.add_nodes()
        self.listen()
        self.export("disk", writable=True, allocation_depth=True)
        self.export("disk", "ro", description="not to be written")
        self.export("null", writable=True)
        return self

    @property
    def server(self):
        return self.yard.extra["nbd-server"]

    def connect(self, name=None, *args, **options):
        """A raw client, in the transmission phase of ``name`` if that is given."""
        client = raw_client.RawClient(self.path, **options)
        self.clients.append(client)
        if name is not None:
            client.go(name, *args)
        return client

    def check_others(self):
        """Another client is served and the data is intact; ends every failure test."""
        with self.connect("ro") as client:
            assert client.read(0, DATA) == self.content[:DATA]
            assert client.read(SIZE - 4096, 4096) == self.content[SIZE - 4096 :]

    def uri(self, name="disk"):
        return f"nbd+unix:///{name}?socket={self.path}"


@pytest.fixture
def portal():
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def bare(portal, tmp_path):
    """A yard without a server."""
    with portal.wrap_async_context_manager(Yard()) as yard:
        server = Server(portal, yard, tmp_path)
        yield server
        for client in server.clients:
            client.close()


@pytest.fixture
def server(bare):
    return bare.standard()
