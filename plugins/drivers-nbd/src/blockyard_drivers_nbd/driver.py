# SPDX-License-Identifier: Apache-2.0
"""The control half of ``nbd``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from blockyard.errors import BlockyardError, InvalidOption, Unsupported, from_errno
from blockyard.node import Driver, Opened
from blockyard.request import Limits
from blockyard.schema import dump
from blockyard_drivers_nbd.dialing import Target, dial_within
from blockyard_drivers_nbd.link import Link
from blockyard_drivers_nbd.names import exact_filename
from blockyard_drivers_nbd.native import lib
from blockyard_drivers_nbd.negotiation import check_names
from blockyard_drivers_nbd.wire import Mode

if TYPE_CHECKING:
    from blockyard_drivers_nbd.information import Export

__all__ = ["NbdDriver"]

_ALLOCATION = "base:allocation"
_DEPTH = "qemu:allocation-depth"
#: What 32 bits of length can say.
_MAX_LENGTH = 1 << 32
#: Options that decide which data the node shows, and how QEMU shows them.
_STRONG = ("server", "export", "tls-creds", "tls-hostname")


class NbdDriver(Driver):
    """A disk of an NBD server."""

    def __init__(self, options: Any, node: Any) -> None:
        super().__init__(options, node)
        self._link: Link | None = None
        self._hurries = 0

    # -- life

    async def open(self) -> Opened:
        """Connect and negotiate.

        :raises BlockyardError: with QEMU's text, if the server cannot be reached, refuses,
            or has something else than was asked for.
        """
        options = self.options
        self._check_credentials()
        context = options.x_dirty_bitmap
        check_names(options.export or "", context)
        target = Target(options.server, options.export or "", context or _ALLOCATION)
        sock, export = await dial_within(target, options.open_timeout or 0)
        try:
            self._check(export)
            loop = self.node.graph.home_for(self.node)
        except BaseException:
            sock.close()
            raise
        link = Link(
            self.node,
            target,
            delay=options.reconnect_delay or 0,
            context_kind=lib.BY_NBDC_DEPTH if context == _DEPTH else lib.BY_NBDC_FLAGS,
            loop=loop,
        )
        link.start(sock, export)
        self._link = link
        return Opened(ops=link.ops, state=link.state, length=export.size, limits=_limits(export))

    def _check_credentials(self) -> None:
        name = self.options.tls_creds
        if name is None:
            return
        if self.node.graph.objects.find(name) is None:
            raise InvalidOption(f"No TLS credentials with id '{name}'")
        raise InvalidOption(f"Object with id '{name}' is not TLS credentials")

    def _check(self, export: Export) -> None:
        export.check()
        if self.options.x_dirty_bitmap is not None and export.context_id is None:
            raise from_errno(errno.EINVAL, "Could not open image")
        if export.read_only:
            self.node.apply_auto_read_only(str(from_errno(errno.EACCES, "Could not open image")))

    async def before_close(self) -> None:
        """Say goodbye."""
        if self._link is not None:
            await self._link.stop()

    async def close(self) -> None:
        """Free the native half."""
        if self._link is not None:
            await self._link.stop()
            self._link.free()
            self._link = None

    # -- names

    def exact_filename(self) -> str | None:
        """``nbd://host:port/export`` or ``nbd+unix:///export?socket=path``."""
        return exact_filename(dump(self.options)["server"], self.options.export)

    def directory(self) -> str | None:
        """There is none: names of other images are not relative to an export.

        :raises InvalidOption: always, with QEMU's text.
        """
        raise InvalidOption("Cannot generate a base directory for NBD nodes")

    def strong_options(self) -> dict[str, Any]:
        """The server, flat, the export, and by whom it must be certified."""
        given = dump(self.options)
        strong = {name: given[name] for name in _STRONG[1:] if name in given}
        server = {f"server.{name}": value for name, value in given["server"].items()}
        return {**server, **strong}

    # -- when requests in flight are waited for

    def hurry_begin(self) -> None:
        """A server that is gone or silent holds nobody up for ever."""
        self._hurries += 1
        if self._link is not None:
            self._link.hurry_begin()

    def hurry_end(self) -> None:
        """The counterpart."""
        self._hurries -= 1
        if self._link is not None and not self._hurries:
            self._link.hurry_end()

    # -- reopen and length

    async def reopen_prepare(self, options: Any, read_only: bool) -> None:
        """Flags may change, as far as the server allows.

        :raises ImageIOError: if it serves the export read-only.
        """
        if not read_only and self._link is not None and self._link.read_only:
            raise from_errno(errno.EACCES)

    async def check_resize(self, length: int) -> None:
        """The server decides how long its export is.

        :raises Unsupported: if ``length`` is another one.
        """
        if length != self.node.length:
            raise Unsupported("Cannot resize NBD nodes")

    def truncate_error(self, length: int, prealloc: str, error: BlockyardError) -> BlockyardError:
        """QEMU's words."""
        number = getattr(error, "errno", None)
        if number == errno.ENOTSUP:
            return Unsupported("Cannot resize NBD nodes")
        return InvalidOption("Cannot grow NBD nodes") if number == errno.EINVAL else error

    def link_stats(self) -> dict[str, int]:
        """Counters of the connections, for tests and benchmarks."""
        return self._link.stats() if self._link is not None else {}


def _limits(export: Export) -> Limits:
    most = _MAX_LENGTH - max(export.block, 4096)
    return Limits(
        request_alignment=export.block,
        max_iov=lib.BY_NBDC_IOV,
        max_transfer=export.payload,
        max_write_zeroes=most if export.mode == Mode.EXTENDED else export.payload,
        max_discard=most,
        optimal_transfer=export.preferred if export.preferred > export.block else 0,
    )
