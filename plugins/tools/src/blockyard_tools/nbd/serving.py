# SPDX-License-Identifier: Apache-2.0
"""Serving one image, from the command line's settings to the last client's end."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from blockyard import activation
from blockyard.daemon.deadline import deadline
from blockyard.daemon.process import PidFile
from blockyard.errors import BlockyardError, UnknownPlugin
from blockyard.qmp.command import command_type
from blockyard.schema import visit
from blockyard.schema.export import BlockExportOptions
from blockyard.schema.sockets import SocketAddress
from blockyard.yard import Yard
from blockyard_tools.error import ProgramError
from blockyard_tools.nbd.addresses import fd_address, label_sockets, main_address, socket_path
from blockyard_tools.nbd.images import open_served, writes_through
from blockyard_tools.nbd.options import PROGRAM
from blockyard_tools.nbd.preparing import prepare_objects

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from blockyard.daemon.tracing import Tracing
    from blockyard.image import Image
    from blockyard_tools.nbd.background import Background
    from blockyard_tools.nbd.kernel import Device
    from blockyard_tools.nbd.options import Settings

__all__ = ["serve"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXPORT = "qemu-nbd-export"


async def serve(
    settings: Settings,
    background: Background,
    tracing: Tracing | None = None,
    listening: int | None = None,
) -> None:
    """Serve until the last client has gone, or a signal comes; then close everything.

    ``listening`` is a socket that listens already at the address of the settings.

    :raises ProgramError: if it cannot begin; everything is closed by then.
    """
    with anyio.open_signal_receiver(*_SIGNALS) as signals, contextlib.ExitStack() as ending:
        async with Yard(held=True) as yard:
            if tracing is not None:
                tracing.attach(yard)
            try:
                await _Serving(yard, settings, background, listening).run(signals)
            except BlockyardError as error:
                raise ProgramError(PROGRAM, _hinted(str(error))) from error
            finally:
                ending.enter_context(deadline(yard.graph, None, PROGRAM))


def _hinted(text: str) -> str:
    if text.startswith("UNIX socket path") and text.endswith("is too long"):
        return f"{text}\nPath must be less than 108 bytes"
    return text


class _Serving:
    def __init__(
        self, yard: Yard, settings: Settings, background: Background, listening: int | None
    ) -> None:
        self._yard = yard
        self._listening = listening
        self._settings = settings
        self._background = background
        self._stop = anyio.Event()
        self._device: Device | None = None

    async def run(self, signals: AsyncIterable[object]) -> None:
        setting_up = anyio.CancelScope()
        self._yard.spawn(self._wait_for_signal, signals, setting_up)
        try:
            with setting_up:
                await self._set_up()
            await self._stop.wait()
        finally:
            activation.notify("STOPPING=1")
            if self._device is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._device.detach)

    async def _wait_for_signal(
        self, signals: AsyncIterable[object], setting_up: anyio.CancelScope
    ) -> None:
        async for _ in signals:
            self._stop.set()
            setting_up.cancel()

    async def _set_up(self) -> None:
        settings, yard = self._settings, self._yard
        await prepare_objects(yard, settings)
        server = await self._listen()
        image = await open_served(yard, settings)
        await self._export(image)
        await image.close()
        self._write_pid_file()
        if not settings.persistent or settings.device is not None:
            yard.spawn(self._wait_for_clients, server)
        gc.freeze()
        gc.enable()
        yard.accepting.set()
        if settings.device is not None:
            await self._attach(settings.device)
        self._background.ready()
        activation.notify("READY=1")

    async def _listen(self) -> Any:
        """Start the server that the NBD plugin brings; answers it."""
        yard, settings = self._yard, self._settings
        fds = [each.fd for each in activation.passed()]
        if self._listening is not None:
            fds = [self._listening]
        addresses = [fd_address(fd) for fd in fds] or [main_address(settings)]
        options = {
            "addr": addresses[0],
            "max-connections": self._connections(),
            "handshake-max-seconds": settings.handshake_limit,
        }
        for name in ("tls_creds", "tls_authz"):
            if (value := getattr(settings, name)) is not None:
                options[name.replace("_", "-")] = value
        if not yard.registry.has("options", "nbd-server"):
            raise UnknownPlugin("An NBD server needs the package blockyard-exports-nbd")
        start = command_type(yard.registry.find("options", "nbd-server"))
        with label_sockets(settings.selinux_label):
            await start.run(yard, visit(start.args, options))
        server = yard.extra["nbd-server"]
        for address in addresses[1:]:
            await server.start(visit(SocketAddress, address))
        return server

    def _connections(self) -> int:
        """Those of the kernel count as one client."""
        shared = self._settings.shared
        if shared and self._settings.device is not None:
            return shared - 1 + self._kernel_connections()
        return shared

    def _kernel_connections(self) -> int:
        processors = len(os.sched_getaffinity(0))
        return min(self._settings.shared or processors, processors)

    async def _export(self, image: Image) -> None:
        settings = self._settings
        readable = settings.read_only or settings.load_snapshot is not None
        options: dict[str, Any] = {
            "type": "nbd",
            "id": _EXPORT,
            "node-name": image.node.name,
            "writable": not readable,
            "writethrough": writes_through(settings),
            "name": settings.export_name or "",
            "allocation-depth": settings.allocation_depth,
            "bitmaps": list(settings.bitmaps),
        }
        if settings.description is not None:
            options["description"] = settings.description
        await self._yard.exports.add(visit(BlockExportOptions, options))

    def _write_pid_file(self) -> None:
        if self._settings.pid_file is None:
            return
        try:
            PidFile(self._settings.pid_file).create()
        except BlockyardError as error:
            text = str(error).removeprefix("cannot create PID file: ")
            raise BlockyardError(text) from error

    async def _wait_for_clients(self, server: Any) -> None:
        await server.deserted.wait()
        self._stop.set()

    async def _attach(self, path: str) -> None:
        from blockyard_tools.nbd.kernel import Device

        token = anyio.lowlevel.current_token()

        def ended() -> None:
            try:
                anyio.from_thread.run_sync(self._stop.set, token=token)
            except RuntimeError:
                # The program has ended before.
                pass

        device = Device(path, ended)
        where = socket_path(self._settings)
        await anyio.to_thread.run_sync(
            device.attach, where, self._settings.export_name or "", self._kernel_connections()
        )
        self._device = device
        if self._settings.verbose:
            sys.stderr.write(f"NBD device {path} is now connected to {self._settings.image}\n")
