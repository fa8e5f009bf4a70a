# SPDX-License-Identifier: Apache-2.0
"""What a server says of its export, and the errors by which it refuses one."""

from __future__ import annotations

import errno
import struct

import attrs

from blockyard.errors import BlockyardError, from_errno
from blockyard.request import MAX_LENGTH
from blockyard_drivers_nbd.wire import Info, Mode, Reply, TransmissionFlag, option_name

__all__ = ["MAX_PAYLOAD", "Export", "Information", "refusal"]

#: More is never sent or asked for, whatever a server allows.
MAX_PAYLOAD = 32 << 20
#: A server that names no smallest block is spared smaller ones where the size allows it.
_DEFAULT_BLOCK = 512
#: A larger smallest block than any disk has would cost memory for every request.
_MAX_BLOCK = 1 << 20


@attrs.frozen(kw_only=True)
class Export:
    """What is served, and how it is spoken to."""

    #: Bytes.
    size: int
    #: The transmission flags, unknown ones included.
    flags: int
    #: Bytes, as the server said; the smallest block is None where it did not.
    minimum: int | None = None
    preferred: int = 0
    maximum: int = MAX_PAYLOAD
    mode: Mode = Mode.SIMPLE
    #: The number of the metadata context that was asked for, if there is one.
    context_id: int | None = None

    @property
    def block(self) -> int:
        """Offsets and lengths of requests are multiples of this power of two."""
        if self.minimum is not None:
            return self.minimum
        return 1 if self.size % _DEFAULT_BLOCK else _DEFAULT_BLOCK

    @property
    def payload(self) -> int:
        """The longest payload that is sent or asked for, in bytes; whole blocks."""
        return min(self.maximum, MAX_PAYLOAD) & -self.block

    @property
    def read_only(self) -> bool:
        """Whether the server refuses writes."""
        return bool(self.flags & TransmissionFlag.READ_ONLY)

    @property
    def multi_conn(self) -> bool:
        """Whether a flush on one connection covers the writes on all."""
        return bool(self.flags & TransmissionFlag.CAN_MULTI_CONN)

    def check(self) -> None:
        """Refuse what cannot be a node.

        :raises BlockyardError: with QEMU's text.
        """
        if self.size > MAX_LENGTH:
            raise from_errno(errno.EFBIG, "Could not refresh total sector count")
        if self.size % self.block:
            raise BlockyardError(
                f"export size {self.size} is not multiple of minimum block size {self.block}"
            )


class Information:
    """Collects the replies to GO."""

    def __init__(self) -> None:
        self._export: tuple[int, int] | None = None
        self._blocks: tuple[int, int, int] | None = None

    def wants(self, kind: int, length: int) -> bool:
        """Whether :meth:`take` is to be given this piece of information.

        :raises BlockyardError: if it has not the length that it must have.
        """
        expected = {Info.EXPORT: 10, Info.BLOCK_SIZE: 12}.get(kind)  # type: ignore[call-overload]
        if expected is not None and length != expected:
            raise BlockyardError(f"remaining export info len {length} is unexpected size")
        return expected is not None

    def take(self, kind: int, data: bytes) -> None:
        """Note what :meth:`wants` wanted.

        :raises BlockyardError: if it contradicts itself.
        """
        if kind == Info.EXPORT:
            self._export = struct.unpack(">QH", data)
        else:
            self._blocks = _checked_blocks(*struct.unpack(">III", data))

    def export(self) -> Export:
        """What all pieces say together.

        :raises BlockyardError: if the most important one is missing.
        """
        if self._export is None or not self._export[1]:
            raise BlockyardError("broken server omitted NBD_INFO_EXPORT")
        size, flags = self._export
        if self._blocks is None:
            return Export(size=size, flags=flags)
        minimum, preferred, maximum = self._blocks
        return Export(size=size, flags=flags, minimum=minimum, preferred=preferred, maximum=maximum)


def _checked_blocks(minimum: int, preferred: int, maximum: int) -> tuple[int, int, int]:
    if not _power_of_two(minimum):
        raise BlockyardError(f"server minimum block size {minimum} is not a power of two")
    if minimum > _MAX_BLOCK:
        raise BlockyardError(f"server minimum block size {minimum} is too large")
    if not _power_of_two(preferred) or preferred < minimum:
        raise BlockyardError(f"server preferred block size {preferred} is not valid")
    if maximum < minimum:
        raise BlockyardError(f"server maximum block size {maximum} is not valid")
    return minimum, preferred, maximum


def _power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


_REFUSALS = {
    Reply.ERR_UNSUP: "Unsupported option type {option}",
    Reply.ERR_POLICY: "Denied by server for option {option}",
    Reply.ERR_INVALID: "Invalid parameters for option {option}",
    Reply.ERR_PLATFORM: "Server lacks support for option {option}",
    Reply.ERR_TLS_REQD: "TLS negotiation required before option {option}",
    Reply.ERR_UNKNOWN: "Requested export not available",
    Reply.ERR_SHUTDOWN: "Server shutting down before option {option}",
    Reply.ERR_BLOCK_SIZE_REQD: "Server requires INFO_BLOCK_SIZE for option {option}",
}


def refusal(kind: int, option: int, message: str) -> BlockyardError:
    """The error for an error reply; its hint has what the server said."""
    try:
        text = _REFUSALS[Reply(kind)]
    except (KeyError, ValueError):
        text = "Unknown error code when asking for option {option}"
    error = BlockyardError(text.format(option=f"{option:d} ({option_name(option)})"))
    hints = ["Did you forget a valid tls-creds?"] if kind == Reply.ERR_TLS_REQD else []
    if message:
        hints.append(f"server reported: {message}")
    error.hint = "\n".join(hints)
    return error
