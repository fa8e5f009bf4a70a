# SPDX-License-Identifier: Apache-2.0
"""What a driver's author tells the kit, beyond what the driver itself declares."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from blockyard.plugins import Registry

__all__ = ["Subject"]

#: Options for ``blockdev-add``, of an image that the call has just made.
Make = Callable[[Path, int], "dict[str, Any] | Awaitable[dict[str, Any]]"]


@attrs.frozen(kw_only=True)
class Subject:
    """A driver under test.

    The checks are chosen by these fields and by what the opened node says of
    itself (read-only, limits, operations that answer ENOTSUP), never by a name.
    """

    #: ``make(folder, size)``: make an image of ``size`` bytes in an empty folder and
    #: answer the options that open it.  A driver of fixed size may ignore ``size``.
    make: Make
    #: Bytes asked of ``make``; at least 256 KiB.
    size: int = 4 << 20
    #: Whether what is written can be read.  False for a driver that forgets.
    stores: bool = True
    #: Whether what was written is there after closing and opening again with the
    #: same options.
    persists: bool = True
    #: Whether what TRUNCATE adds reads as zeroes.  False for a driver that encrypts.
    grows_zero: bool = True
    #: Whether the node cannot be read-only, because it writes by itself.
    writes_always: bool = False
    #: Whether ``make`` can make an image of 6 GiB without filling memory or disk, so
    #: that offsets beyond 32 bits are tried.
    large: bool = False
    #: Options that must be refused, with nothing left behind: a missing image...
    refused: tuple[dict[str, Any], ...] = ()
    #: Options for ``object-add``, of what the driver's options name: a secret...
    objects: tuple[dict[str, Any], ...] = ()
    #: Where the driver is registered; the installed plugins if None.
    registry: Registry | None = None
    #: Random data and orders depend on this alone.
    seed: int = 1
