# SPDX-License-Identifier: Apache-2.0
"""A disk in memory: options, open, read, write."""

from blockyard.node import DriverType, Opened, PythonDriver
from blockyard.request import Preallocation, RequestFlags
from blockyard.schema import Size, struct

__all__ = ["BlockdevOptionsRam", "RamDriver"]


@struct
class BlockdevOptionsRam:
    """Options of the driver ``ram``."""

    #: Bytes.
    size: Size


class RamDriver(PythonDriver):
    """Bytes in memory, gone when the node is closed."""

    type = DriverType(
        name="ram",
        kind="protocol",
        options=BlockdevOptionsRam,
        implementation="blockyard_drivers_ram.driver:RamDriver",
    )

    async def open(self) -> Opened:
        """Begin with zeroes."""
        self.memory = bytearray(self.options.size)
        return Opened(length=len(self.memory))

    async def read(self, offset: int, length: int) -> bytes:
        """Answer with a copy, which later writes do not change."""
        return bytes(self.memory[offset : offset + length])

    async def write(self, offset: int, view: memoryview, flags: RequestFlags) -> None:
        """Keep the bytes; the view is gone afterwards."""
        self.memory[offset : offset + len(view)] = view

    async def truncate(self, length: int, prealloc: Preallocation, exact: bool) -> None:
        """Cut the end off, or append zeroes."""
        del self.memory[length:]
        self.memory.extend(bytes(length - len(self.memory)))
