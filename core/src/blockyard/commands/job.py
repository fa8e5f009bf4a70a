# SPDX-License-Identifier: Apache-2.0
"""query-jobs and the job verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.qmp.command import command
from blockyard.schema.declare import struct
from blockyard.schema.job import JobInfo

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = [
    "job_cancel",
    "job_complete",
    "job_dismiss",
    "job_finalize",
    "job_pause",
    "job_resume",
    "query_jobs",
]


@struct
class JobArguments:
    """What the job verbs take.

    id: the job.
    """

    id: str


@command("query-jobs", returns=list[JobInfo])
async def query_jobs(yard: Yard, args: None) -> list[JobInfo]:
    """All jobs, the newest first."""
    return [job.info() for job in yard.jobs]


@command("job-pause", args=JobArguments)
async def job_pause(yard: Yard, args: JobArguments) -> None:
    """Let a job stop at its next pause point."""
    yard.jobs.find(args.id).user_pause()


@command("job-resume", args=JobArguments)
async def job_resume(yard: Yard, args: JobArguments) -> None:
    """Let a job go on that job-pause stopped."""
    yard.jobs.find(args.id).user_resume()


@command("job-cancel", args=JobArguments)
async def job_cancel(yard: Yard, args: JobArguments) -> None:
    """End a job at its next pause point, and undo what it did."""
    yard.jobs.find(args.id).user_cancel(force=True)


@command("job-complete", args=JobArguments)
async def job_complete(yard: Yard, args: JobArguments) -> None:
    """Let a job that is ready come to its end."""
    await yard.jobs.find(args.id).user_complete()


@command("job-finalize", args=JobArguments)
async def job_finalize(yard: Yard, args: JobArguments) -> None:
    """Let a job that waits for it take its final step."""
    yard.jobs.find(args.id).user_finalize()


@command("job-dismiss", args=JobArguments)
async def job_dismiss(yard: Yard, args: JobArguments) -> None:
    """Forget a job that has concluded."""
    yard.jobs.dismiss(yard.jobs.find(args.id))
