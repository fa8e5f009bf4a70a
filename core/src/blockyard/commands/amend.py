# SPDX-License-Identifier: Apache-2.0
"""x-blockdev-amend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.errors import InvalidOption, Unsupported
from blockyard.job import Job
from blockyard.qmp.command import command
from blockyard.schema.block import BlockdevAmendOptions
from blockyard.schema.declare import struct
from blockyard.schema.job import JobType

if TYPE_CHECKING:
    from blockyard.node import Node
    from blockyard.yard import Yard

__all__ = ["AmendJob", "x_blockdev_amend"]


@struct
class XBlockdevAmendArguments:
    """What x-blockdev-amend takes.

    job-id: the name of the job that does it; job-dismiss forgets it.
    node-name: the node whose image is changed.
    options: the new options; the driver is the node's.
    force: do it even where data becomes unreadable by it (false).
    """

    job_id: str
    node_name: str
    options: BlockdevAmendOptions
    force: bool | None = None


class AmendJob(Job):
    """x-blockdev-amend: a driver changes its image's options."""

    type = JobType.AMEND

    def __init__(self, yard: Yard, node: Node, options: Any, *, force: bool) -> None:
        super().__init__(yard, auto_dismiss=False)
        self._node = node
        self._options = options
        self._force = force
        self._begun = False

    async def begin(self) -> None:
        """Take the permissions that the driver needs, and keep the node open.

        :raises BlockyardError: if it is refused; nothing is left of it then.
        """
        async with self.yard.graph.writer:
            await self._node.driver.amend_begin()
            self._node.holders += 1
            self._begun = True

    async def run(self) -> None:
        """Amend; the progress is one step."""
        self.total = 1
        try:
            await self._node.driver.amend(self._options, force=self._force)
        finally:
            self.progress = 1

    async def clean(self) -> None:
        """Give the permissions and the node back."""
        if self._begun:
            await self._node.driver.amend_end()
            await self.yard.graph.let_go(self._node)


@command("x-blockdev-amend", args=XBlockdevAmendArguments, features=("unstable",))
async def x_blockdev_amend(yard: Yard, args: XBlockdevAmendArguments) -> None:
    """Change options of an image in a job."""
    node = yard.graph.lookup(args.node_name)
    declaration = yard.registry.driver(args.options.driver)
    if declaration.name != node.type.name:
        raise InvalidOption("x-blockdev-amend doesn't support changing the block driver")
    if declaration.amend_options is None:
        raise Unsupported("Driver does not support x-blockdev-amend")
    job = AmendJob(yard, node, args.options.u, force=bool(args.force))
    await yard.jobs.begin(args.job_id, job)
