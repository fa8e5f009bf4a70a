# SPDX-License-Identifier: Apache-2.0
"""What a check works on: one image, one node, one random number generator."""

import inspect
import random
from pathlib import Path
from typing import Any

import attrs

from blockyard.schema import visit
from blockyard.schema.qom import ObjectOptions
from blockyard.testing.subject import Subject
from blockyard.yard import Yard

__all__ = ["Case"]


@attrs.define
class Case:
    """One check's surroundings.  ``node`` is open, fresh and nobody else's."""

    subject: Subject
    yard: Yard
    folder: Path
    random: random.Random
    options: dict[str, Any] = attrs.field(factory=dict)
    node: Any = None

    async def start(self) -> None:
        """Make the image and open it, the objects first."""
        for options in self.subject.objects:
            await self.yard.objects.add(visit(ObjectOptions, options))
        self.options = await self.make(self.folder, self.subject.size)
        self.node = await self.open()

    async def make(self, folder: Path, size: int) -> dict[str, Any]:
        """A new image's options."""
        made = self.subject.make(folder, size)
        return await made if inspect.isawaitable(made) else made

    async def open(self, **extra: Any) -> Any:
        """The image once more, with ``extra`` options."""
        return await self.yard.open(self.full_options(**extra))

    def full_options(self, **extra: Any) -> dict[str, Any]:
        """The options with which the image is opened, and ``extra``."""
        return {"node-name": "subject", "discard": "unmap", **self.options, **extra}

    async def close(self) -> None:
        """Close the node, if it is open."""
        if self.node is not None:
            node, self.node = self.node, None
            await node.close()

    async def reopen(self, **extra: Any) -> Any:
        """Close the node and open the image again."""
        await self.close()
        self.node = await self.open(**extra)
        return self.node

    @property
    def length(self) -> int:
        """The node's length in bytes."""
        return int(self.node.length)

    def data(self, length: int) -> bytes:
        """Random bytes, none of which is zero."""
        return self.random.randbytes(length).replace(b"\0", b"\x01")

    def range(self, longest: int) -> tuple[int, int]:
        """A random offset and a length from 1 to ``longest``, inside the node."""
        length = self.random.randint(1, min(longest, self.length))
        return self.random.randint(0, self.length - length), length
