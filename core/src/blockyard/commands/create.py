# SPDX-License-Identifier: Apache-2.0
"""blockdev-create."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.entrypoints import implementation
from blockyard.errors import Unsupported
from blockyard.job import CreateJob
from blockyard.qmp.command import command
from blockyard.schema.block import BlockdevCreateOptions
from blockyard.schema.declare import struct

if TYPE_CHECKING:
    from blockyard.node import Driver
    from blockyard.yard import Yard

__all__ = ["blockdev_create"]


@struct
class BlockdevCreateArguments:
    """What blockdev-create takes.

    job-id: the name of the job that makes the image; job-dismiss forgets it.
    options: what to make.
    """

    job_id: str
    options: BlockdevCreateOptions


@command("blockdev-create", args=BlockdevCreateArguments)
async def blockdev_create(yard: Yard, args: BlockdevCreateArguments) -> None:
    """Make an image in a job."""
    declaration = yard.registry.driver(args.options.driver)
    driver: type[Driver] = implementation(declaration)
    if declaration.create_options is None:
        raise Unsupported("Driver does not support blockdev-create")
    yard.jobs.start(args.job_id, CreateJob(yard, driver, args.options.u))
