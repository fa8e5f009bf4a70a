# SPDX-License-Identifier: Apache-2.0
"""What a chardev is: one end for a monitor, one for the world."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from blockyard.errors import BlockyardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.chardev.logfile import LogFile
    from blockyard.qmp.stream import Stream

__all__ = ["Chardev", "ChardevType"]


@attrs.frozen(eq=False, repr=False, kw_only=True)
class ChardevType:
    """The declaration of a kind of chardev: cheap to import, found by entry point."""

    #: The name in QMP, ``"socket"``.
    name: str
    #: ``"module:Class"``.
    implementation: str
    #: ``"module:function"`` that makes the ``data`` of a command line's options.
    parse: str
    #: The QOM type that ``chardev-NAME`` derives from.
    parent: str = "chardev"


class Chardev(abc.ABC):
    """One chardev.  It carries one client at a time."""

    type: ClassVar[ChardevType]
    #: The QOM properties beside ``type``: (name, type).
    qom: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, label: str, options: Any) -> None:
        """``options``: the visited ``data`` of its ChardevBackend branch."""
        self.label = label
        self.options = options
        #: Who uses it, a monitor; None when it is free.
        self.user: object | None = None
        self.log: LogFile | None = None

    async def start(self, *, wait: bool) -> None:
        """Open the log file and whatever is behind.  A failed start leaves nothing behind.

        ``wait``: a server whose options say so waits for its first client, as on the
        command line; a QMP command never does, because other monitors wait for it.

        :raises BlockyardError: with QEMU's text.
        """
        if self.options.logfile is not None:
            from blockyard.chardev.logfile import LogFile

            self.log = LogFile(self.options)
        try:
            await self.open(wait=wait)
        except BaseException:
            self._close_log()
            raise

    async def stop(self) -> None:
        """Close everything; whoever uses it finds its stream ended."""
        await self.close()
        self._close_log()

    @abc.abstractmethod
    async def open(self, *, wait: bool) -> None:
        """Open what is behind; see :meth:`start`."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close what is behind."""

    @abc.abstractmethod
    async def accept(self) -> Stream:
        """Wait for a client and answer the stream to it, which the caller closes."""

    @property
    def filename(self) -> str:
        """What query-chardev calls it."""
        return self.type.name

    @property
    def pty(self) -> str | None:
        """The path of its pseudo-terminal, if it is one."""
        return None

    def properties(self) -> dict[str, tuple[str, Callable[[], Any]]]:
        """Its QOM properties but ``type``: name -> (type, getter)."""
        return {}

    def claim(self, user: object) -> None:
        """Become ``user``'s.

        :raises BlockyardError: if it is somebody's already.
        """
        if self.user is not None:
            raise BlockyardError(f"chardev '{self.label}' is already in use")
        self.user = user

    def release(self) -> None:
        """Be free for another user."""
        self.user = None

    def _close_log(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None
