# SPDX-License-Identifier: Apache-2.0
"""``blockyard serve``: share an image with NBD clients until Ctrl-C."""

import argparse
import os
import signal
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from blockyard.cli.clients import client_commands, tcp_uri, unix_uri
from blockyard.cli.tool import ToolError
from blockyard.plugins import BLOCK_KINDS, Registry
from blockyard.probe import Guess, guess

__all__ = ["configure", "run"]

_DESCRIPTION = """\
Serve a disk image over NBD, on a unix socket and, if asked to, on TCP, and print
what to type into another terminal to use it.  Ctrl-C ends it; whatever clients
wrote and were told is written is in the image then.

Without IMAGE a small sparse image is made to play with; it is deleted at the end.
"""

_EXAMPLES = """\
examples:
  blockyard serve                           something to play with
  blockyard serve disk.qcow2                the format is found by the image's mark
  blockyard serve -f raw disk.img           a raw image, for writing
  blockyard serve -r disk.img               look, do not touch
  blockyard serve --tcp 10809 disk.img      also for other machines (no encryption!)
  blockyard serve --socket /tmp/s disk.img  on a socket of your choice

formats: an image is probed when -f is not given, and what was found is printed with
the reason.  A raw image has no mark, so raw is a guess: it is served read-only until
you say -f raw, because a guest could have written another format's mark into it.
'blockyard plugins' lists the formats that are installed.
"""

_NODE = "image"
_DEMO_SIZE = 64 << 20


@attrs.frozen
class _Plan:
    """What is to be opened, and why so."""

    path: str
    format: str
    reason: str
    read_only: bool
    remark: str = ""

    def options(self) -> dict[str, Any]:
        """For blockdev-add."""
        device = stat.S_ISBLK(os.stat(self.path).st_mode)
        driver = "host_device" if device else "file"
        return {
            "driver": self.format,
            "node-name": _NODE,
            "read-only": self.read_only,
            "auto-read-only": True,
            "discard": "unmap",
            "file": {"driver": driver, "filename": self.path},
        }


def configure(parser: argparse.ArgumentParser) -> None:
    """The tool's arguments."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a file or a block device")
    parser.add_argument("-f", "--format", metavar="FORMAT", help="the image's format")
    parser.add_argument("-r", "--read-only", action="store_true", help="refuse writes")
    parser.add_argument("--socket", metavar="PATH", help="the unix socket (one in a new folder)")
    parser.add_argument(
        "--tcp", metavar="[HOST:]PORT", help="serve on TCP as well; HOST is 127.0.0.1 if left out"
    )
    parser.add_argument("--name", default="", help="the export's name (empty)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the URIs")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    import anyio

    from blockyard.plugins import default_registry

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blockyard-")))
        registry = default_registry()
        plan = _plan(options, folder, registry)
        _check_format(plan, registry)
        anyio.run(_serve, options, plan, options.socket or str(folder / "socket"))
    return 0


# -- what to open


def _plan(options: argparse.Namespace, folder: Path, registry: Registry) -> _Plan:
    if options.image is None:
        return _demo(options, folder)
    path = os.path.abspath(options.image)
    try:
        found = guess(path, registry)
    except (OSError, ValueError) as error:
        raise ToolError(_reason(options.image, error)) from error
    if options.format:
        return _Plan(path, options.format, "as you said", options.read_only)
    return _guessed(path, found, options.read_only)


def _guessed(path: str, found: Guess, read_only: bool) -> _Plan:
    if found.certain or read_only:
        return _Plan(path, found.format, f"guessed: {found.reason}", read_only)
    remark = "Read-only, because raw is only a guess; for writing: -f raw"
    return _Plan(path, found.format, f"guessed: {found.reason}", True, remark)


def _demo(options: argparse.Namespace, folder: Path) -> _Plan:
    """A sparse raw image in the temporary folder."""
    if options.format not in (None, "raw"):
        raise ToolError(f"-f {options.format} needs an IMAGE; one that is made here is raw")
    path = folder / "demo.img"
    with path.open("wb") as file:
        file.truncate(_DEMO_SIZE)
    remark = "To play with: it is deleted at the end"
    return _Plan(str(path), "raw", "made just now", options.read_only, remark)


def _reason(image: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot open '{image}': {os.strerror(error.errno or 5)}"
    return str(error)


def _check_format(plan: _Plan, registry: Registry) -> None:
    """Name the package that is missing, with the reason for wanting it."""
    if any(registry.has(kind, plan.format) for kind in BLOCK_KINDS):
        return
    known = ", ".join(registry.names("formats")) or "none"
    raise ToolError(
        f"the format of '{plan.path}' is {plan.format} ({plan.reason}), and no installed plugin"
        f" reads it; install the package blockyard-formats-{plan.format}, or name another format"
        f" with -f (installed: {known})"
    )


# -- serving


async def _serve(options: argparse.Namespace, plan: _Plan, socket: str) -> None:
    import anyio

    from blockyard.yard import Yard

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with Yard() as yard:
            uris = await _export(yard, options, plan, socket)
            _announce(options, plan, yard.graph.find(_NODE), uris, socket)
            async for _ in signals:
                break
            if not options.quiet:
                print("\nEnding: clients are disconnected, data is written back.", flush=True)


async def _export(yard: Any, options: argparse.Namespace, plan: _Plan, socket: str) -> list[str]:
    """Open the image and serve it, as a monitor would; answers the URIs."""
    from blockyard.qmp.dispatcher import Dispatcher

    execute = Dispatcher(yard, yard.registry).execute
    await execute("blockdev-add", plan.options())
    await execute("nbd-server-start", {"addr": {"type": "unix", "data": {"path": socket}}})
    uris = [unix_uri(socket, options.name)]
    if options.tcp:
        uris += await _listen_on_tcp(yard, options)
    export = {
        "type": "nbd",
        "id": "serve",
        "node-name": _NODE,
        "writable": not yard.graph.find(_NODE).read_only,
        "name": options.name,
    }
    await execute("block-export-add", export)
    return uris


async def _listen_on_tcp(yard: Any, options: argparse.Namespace) -> list[str]:
    """Let the server listen on TCP too; one URI for each address of the host."""
    from blockyard.schema import visit
    from blockyard.schema.sockets import SocketAddress

    host, _, port = options.tcp.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16):
        # The resolver takes larger numbers, and cuts them.
        raise ToolError(f"'{port}' is no TCP port: 0 to 65535, 0 for any")
    address = {"type": "inet", "host": host.strip("[]") or "127.0.0.1", "port": port}
    server = yard.extra["nbd-server"]
    before = len(server.addresses)
    await server.start(visit(SocketAddress, address))
    return [tcp_uri(name[0], name[1], options.name) for name in server.addresses[before:]]


def _announce(
    options: argparse.Namespace, plan: _Plan, node: Any, uris: list[str], socket: str
) -> None:
    """Tell the person everything needed to go on."""
    if options.quiet:
        print("\n".join(uris), flush=True)
        return
    writable = "read-only" if node.read_only else "writable"
    print(f"Image   {plan.path}")
    print(f"Format  {plan.format} ({plan.reason})")
    print(f"Size    {node.length} bytes ({node.length / 2**20:,.1f} MiB), {writable}")
    print("\n".join(f"URI     {uri}" for uri in uris))
    if plan.remark:
        print(f"Note    {plan.remark}")
    print("\nIn another terminal:")
    commands = client_commands(uris[0], socket, writable=not node.read_only)
    width = max(len(purpose) for purpose, _ in commands)
    for purpose, command in commands:
        print(f"  {purpose:<{width}}  {command}")
    print("\nCtrl-C ends it.", flush=True)
