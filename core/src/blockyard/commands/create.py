# SPDX-License-Identifier: Apache-2.0
"""blockdev-create."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockyard.entrypoints import implementation
from blockyard.errors import Unsupported
from blockyard.job import Job
from blockyard.qmp.command import command
from blockyard.schema.block import BlockdevCreateOptions
from blockyard.schema.declare import struct
from blockyard.schema.job import JobType

if TYPE_CHECKING:
    from blockyard.node import Driver
    from blockyard.yard import Yard

__all__ = ["CreateJob", "blockdev_create"]


@struct
class BlockdevCreateArguments:
    """What blockdev-create takes.

    job-id: the name of the job that makes the image; job-dismiss forgets it.
    options: what to make.
    """

    job_id: str
    options: BlockdevCreateOptions


class CreateJob(Job):
    """blockdev-create: a driver makes an image."""

    type = JobType.CREATE

    def __init__(self, yard: Yard, driver: Any, options: Any) -> None:
        super().__init__(yard, auto_dismiss=False)
        self._driver = driver
        self._options = options

    async def run(self) -> None:
        """Make it; the progress is one step."""
        self.total = 1
        try:
            await self._driver.create(self._options, self.yard)
        finally:
            self.progress = 1


@command("blockdev-create", args=BlockdevCreateArguments)
async def blockdev_create(yard: Yard, args: BlockdevCreateArguments) -> None:
    """Make an image in a job."""
    declaration = yard.registry.driver(args.options.driver)
    driver: type[Driver] = implementation(declaration)
    if declaration.create_options is None:
        raise Unsupported("Driver does not support blockdev-create")
    yard.jobs.start(args.job_id, CreateJob(yard, driver, args.options.u))
