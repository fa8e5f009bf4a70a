# SPDX-License-Identifier: Apache-2.0
"""Names of NBD disks, and older options: what they mean, and QEMU's words for bad ones."""

import json
import subprocess

import anyio
import pytest

import servers
from blockyard.errors import BlockyardError
from blockyard.imagename import visited
from blockyard.naming import node_filename
from blockyard.plugins import default_registry
from blockyard.yard import Yard
from blockyard_drivers_nbd.names import adapt_options, parse_filename

UNIX = {"type": "unix", "path": "/x"}


def inet(host="localhost", port="1"):
    return {"type": "inet", "host": host, "port": port}


MEANINGS = {
    "nbd:localhost:1": {"server": inet()},
    "nbd:localhost:1:exportname=a b": {"server": inet(), "export": "a b"},
    "nbd:localhost:1,to=3": {"server": inet()},
    "nbd::1": {"server": inet("")},
    "nbd:localhost:1:foo=bar": {"server": inet(port="1:foo=bar")},
    "nbd:[::1]:1": {"server": inet("::1")},
    "nbd:unix:/x": {"server": UNIX},
    "nbd:unix:": {"server": {"type": "unix", "path": ""}},
    "nbd:unix:/x:exportname=e": {"server": UNIX, "export": "e"},
    "nbd://localhost": {"server": inet(port="10809")},
    "nbd://localhost:0": {"server": inet(port="10809")},
    "nbd://localhost:1/": {"server": inet()},
    "nbd://localhost:1?": {"server": inet()},
    "nbd://user@localhost:1/": {"server": inet()},
    "nbd://[::1]:1/e": {"server": inet("::1"), "export": "e"},
    "nbd://localhost:1//e/f": {"server": inet(), "export": "/e/f"},
    "nbd+tcp://localhost:1/e%20f": {"server": inet(), "export": "e f"},
    "nbd+unix:///e?socket=/x": {"server": UNIX, "export": "e"},
    "nbd+unix:///?socket=/x": {"server": UNIX},
    "nbd+unix://?socket=/x": {"server": UNIX},
    "nbd+unix:////e?socket=%2Fx#frag": {"server": UNIX, "export": "/e"},
    "nbd+unix:///e?socket=/y&socket=/x": {"server": UNIX, "export": "e"},
}

BAD = [
    "nbd:",
    "nbd:localhost",
    "nbd:localhost:",
    "nbd::",
    "nbd:1",
    "nbd:[::1",
    "nbd:[::1]",
    "nbd:localhost:1:exportname=",
    "nbd://",
    "nbd:///",
    "nbd:///e",
    "nbd+tcp:///e",
    "nbd://localhost:abc/",
    "nbd://localhost:99999/",
    "nbd://localhost:1/e%2",
    "nbd://localhost:1/e%00",
    "nbd://localhost:1/e?socket=/x",
    "nbd://localhost:1/?x",
    "nbd+unix:///e",
    "nbd+unix:///e?bar=1",
    "nbd+unix:///e?socket=/x&bar=1",
    "nbd+unix://host/e?socket=/x",
    "nbd+unix://:10/e?socket=/x",
    "nbd+unix:/e?socket=/x",
    "nbd+tcp:localhost:1",
]

BAD_OPTIONS = [
    {},
    {"export": "e"},
    {"port": "1"},
    {"filename": "nbd://localhost:1/e"},
    {"host": "h", "path": "/x"},
    {"path": "/x", "port": "1"},
    {"host": "h", "server": UNIX},
]


def _qemu_text(name):
    words = ["qemu-img", "info", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    # GLib complains before QEMU does.
    return done.stderr.rpartition(f"Could not open '{name}': ")[2].strip()


@pytest.mark.parametrize("name", MEANINGS)
def test_names_have_their_meaning(name):
    assert parse_filename(name) == MEANINGS[name]


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_as_qemu_does(name):
    with pytest.raises(BlockyardError) as caught:
        parse_filename(name)
    assert str(caught.value) == _qemu_text(name)


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_older_options_are_refused_as_qemu_does(options):
    with pytest.raises(BlockyardError) as caught:
        adapt_options({"driver": "nbd", **options})
    assert str(caught.value) == _qemu_text("json:" + json.dumps({"driver": "nbd", **options}))


@pytest.mark.parametrize(
    ("options", "server"),
    [
        ({"host": "h", "port": 7}, inet("h", "7")),
        ({"host": "h"}, inet("h", "10809")),
        ({"path": "/x"}, UNIX),
        ({"server": UNIX, "filename": "ignored"}, UNIX),
    ],
)
def test_older_options_say_the_same(options, server):
    assert adapt_options({"driver": "nbd", "export": "e", **options}) == {
        "driver": "nbd",
        "export": "e",
        "server": server,
    }


def test_older_options_may_be_anywhere_in_a_tree_of_nodes():
    tree = {"driver": "raw", "file": {"driver": "nbd", "host": "h", "port": "5"}}
    found = visited(tree, default_registry())
    assert (found.u.file.u.server.u.host, found.u.file.u.server.u.port) == ("h", "5")


#: Options besides the server's, and whether they have a part in the name.
SHOWN = [
    {},
    {"export": "disk"},
    {"export": "d", "reconnect-delay": 3, "tls-hostname": "h"},
]


def _shown_by_qemu(options):
    text = "json:" + json.dumps(options)
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", text], capture_output=True, text=True, timeout=30
    )
    return json.loads(done.stdout)["filename"]


async def _shown(options):
    async with Yard() as yard, await yard.open({**options, "read-only": True}) as image:
        return node_filename(image.node)


@pytest.mark.parametrize("more", SHOWN, ids=str)
def test_a_node_goes_by_the_name_that_qemu_shows(tmp_path, more):
    file = servers.image(tmp_path, 1 << 20)
    server = servers.qemu_nbd(tmp_path, file, "-r", "-x", more.get("export", ""))
    options = server.options(**more)
    assert anyio.run(_shown, options) == _shown_by_qemu(options)


def test_an_address_that_no_uri_says_is_shown_as_options(tmp_path):
    file = servers.image(tmp_path, 1 << 20)
    server = servers.nbdkit(tmp_path, "-r", "file", file)
    flat = {"type": "unix", "path": server.path, "abstract": False}
    assert anyio.run(_shown, server.options(server=flat)) == _shown_by_qemu(
        server.options(server=flat)
    )


def test_a_node_has_no_folder(tmp_path):
    async def run(options):
        async with Yard() as yard, await yard.open({**options, "read-only": True}) as image:
            with pytest.raises(BlockyardError) as caught:
                image.node.driver.directory()
            assert str(caught.value) == "Cannot generate a base directory for NBD nodes"

    anyio.run(run, servers.nbdkit(tmp_path, "-r", "null", "1M").options())
