# SPDX-License-Identifier: Apache-2.0
"""ringbuf-read and ringbuf-write."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from blockyard.chardev.registry import chardevs_of
from blockyard.chardev.ringbuf import RingbufChardev
from blockyard.errors import InvalidOption, NotFound
from blockyard.qmp.command import command
from blockyard.schema.chardev import DataFormat
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["ringbuf_read", "ringbuf_write"]


@struct
class RingbufWriteArguments:
    """What ringbuf-write takes.

    device: the chardev's label.
    data: what to write.
    format: how data is written (utf8).
    """

    device: str
    data: str
    format: DataFormat | None = None


@struct
class RingbufReadArguments:
    """What ringbuf-read takes.

    device: the chardev's label.
    size: how many bytes to read at most.
    format: how to answer them (utf8).
    """

    device: str
    size: int
    format: DataFormat | None = None


@command("ringbuf-write", args=RingbufWriteArguments)
async def ringbuf_write(yard: Yard, args: RingbufWriteArguments) -> None:
    """Write to a ring buffer; the oldest bytes are lost where it is full."""
    ringbuf = _ringbuf(yard, args.device)
    if args.format == DataFormat.BASE64:
        try:
            data = base64.b64decode(args.data, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidOption("Base64 data contains invalid characters") from None
    else:
        data = args.data.encode("utf-8", "surrogatepass")
    ringbuf.write(data)


@command("ringbuf-read", args=RingbufReadArguments, returns=str)
async def ringbuf_read(yard: Yard, args: RingbufReadArguments) -> str:
    """Take the oldest bytes out of a ring buffer; what is no UTF-8 is replaced."""
    ringbuf = _ringbuf(yard, args.device)
    if args.size <= 0:
        raise InvalidOption("size must be greater than zero")
    data = ringbuf.read(args.size)
    if args.format == DataFormat.BASE64:
        return base64.b64encode(data).decode("ascii")
    return data.decode("utf-8", "replace")


def _ringbuf(yard: Yard, label: str) -> RingbufChardev:
    found = chardevs_of(yard).find(label)
    if found is None:
        raise NotFound(f"Device '{label}' not found")
    if not isinstance(found, RingbufChardev):
        raise InvalidOption(f"{label} is not a ringbuf device")
    return found
