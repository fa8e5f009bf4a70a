# SPDX-License-Identifier: Apache-2.0
"""Jobs: states, verbs, pause points, the final step."""

from typing import Any

import anyio
import pytest

from blockyard.errors import BlockyardError, InvalidOption, NotFound, Unsupported
from blockyard.job import Job
from blockyard.permission import Perm
from blockyard.schema import visit
from blockyard.schema.block import BlockdevOptions
from blockyard.schema.job import JobStatus, JobType, JobVerb
from blockyard.yard import Yard

pytestmark = pytest.mark.anyio


class Steps(Job):
    """A job that takes steps until told to end, and notes what happens to it."""

    type = JobType.MIRROR

    def __init__(self, yard: Yard, *, fails: str = "", **more: Any) -> None:
        super().__init__(yard, **more)
        self.fails = fails
        self.steps = 0
        self.notes: list[str] = []
        self.enough = anyio.Event()

    async def run(self) -> None:
        while not self.enough.is_set():
            await anyio.sleep(0.001)
            await self.pause_point()
            self.steps += 1
        if self.fails == "run":
            raise BlockyardError("it failed")

    async def prepare(self) -> None:
        self.notes.append("prepare")
        if self.fails == "prepare":
            raise BlockyardError("not prepared")

    async def commit(self) -> None:
        self.notes.append("commit")

    async def abort(self) -> None:
        self.notes.append("abort")

    async def clean(self) -> None:
        self.notes.append("clean")


class Ready(Steps):
    """A job that is ready at once, and ends when completed."""

    async def run(self) -> None:
        self.become_ready()
        await super().run()

    async def complete(self) -> None:
        self.enough.set()

    def cancel_softly(self) -> bool:
        self.enough.set()
        return True


@pytest.fixture
def states(yard: Yard) -> list[str]:
    """What JOB_STATUS_CHANGE tells, ``id:state``."""
    told: list[str] = []

    def note(message: Any) -> None:
        if message["event"] == "JOB_STATUS_CHANGE":
            told.append(f"{message['data']['id']}:{message['data']['status']}")

    yard.events.subscribe(note)
    return told


def path(job: Job, *names: str) -> list[str]:
    return [f"{job.id}:{name}" for name in names]


async def reach(job: Job, status: JobStatus) -> None:
    with anyio.fail_after(5):
        while job.status is not status:
            await anyio.sleep(0.001)


async def test_a_job_runs_to_its_end_and_is_forgotten(yard: Yard, states: list[str]) -> None:
    job = Steps(yard)
    yard.jobs.start("j", job)
    job.enough.set()
    await job.ended.wait()
    await reach(job, JobStatus.NULL)

    assert states == path(job, "created", "running", "waiting", "pending", "concluded", "null")
    assert job.notes == ["prepare", "commit", "clean"]
    assert list(yard.jobs) == []


async def test_a_failed_job_undoes_and_says_why(yard: Yard, states: list[str]) -> None:
    job = Steps(yard, fails="run", auto_dismiss=False)
    yard.jobs.start("j", job)
    job.enough.set()
    await job.ended.wait()

    assert states == path(job, "created", "running", "aborting", "concluded")
    assert job.notes == ["abort", "clean"]
    assert job.info().error == "it failed"
    yard.jobs.dismiss(job)


async def test_a_final_step_that_fails_is_undone(yard: Yard) -> None:
    job = Steps(yard, fails="prepare", auto_dismiss=False)
    yard.jobs.start("j", job)
    job.enough.set()
    await job.ended.wait()

    assert job.notes == ["prepare", "abort", "clean"]
    assert job.error == "not prepared"


async def test_pausing_stops_at_a_pause_point(yard: Yard, states: list[str]) -> None:
    job = Steps(yard)
    yard.jobs.start("j", job)
    await reach(job, JobStatus.RUNNING)
    job.user_pause()
    await reach(job, JobStatus.PAUSED)
    steps = job.steps
    await anyio.sleep(0.02)
    assert job.steps == steps
    with pytest.raises(InvalidOption, match="^Job is already paused$"):
        job.user_pause()

    job.user_resume()
    await reach(job, JobStatus.RUNNING)
    with pytest.raises(InvalidOption, match="^Can't resume a job that was not paused$"):
        job.user_resume()
    job.user_cancel()
    await job.ended.wait()
    assert states[:4] == path(job, "created", "running", "paused", "running")


async def test_a_drained_section_waits_for_the_pause_point(yard: Yard) -> None:
    node = await yard.graph.add(visit(BlockdevOptions, {"driver": "mem", "node-name": "disk"}))
    job = Steps(yard)
    root = await yard.graph.attach_root(node, Perm.CONSISTENT_READ, owner=job)
    yard.jobs.start("j", job)
    await reach(job, JobStatus.RUNNING)

    async with yard.graph.drained([node]):
        steps = job.steps
        await anyio.sleep(0.02)
        assert job.steps == steps
        assert job.status is JobStatus.PAUSED
    await reach(job, JobStatus.RUNNING)
    job.user_cancel()
    await job.ended.wait()
    async with yard.graph.drained([node]):
        pass
    await yard.graph.detach_root(root)


async def test_cancelling_ends_a_job_and_undoes_it(yard: Yard, states: list[str]) -> None:
    job = Steps(yard, auto_dismiss=False)
    yard.jobs.start("j", job)
    await reach(job, JobStatus.RUNNING)
    job.user_pause()
    await reach(job, JobStatus.PAUSED)
    job.user_cancel()
    await job.ended.wait()

    assert states[3:] == path(job, "running", "aborting", "concluded")
    assert job.notes == ["abort", "clean"]
    assert job.error == "Operation canceled"


async def test_a_ready_job_is_completed_or_cancelled_softly(yard: Yard, states: list[str]) -> None:
    for verb in ("complete", "cancel"):
        job = Ready(yard)
        yard.jobs.start(verb, job)
        await reach(job, JobStatus.READY)
        if verb == "complete":
            await job.user_complete()
        else:
            job.user_cancel()
        await job.ended.wait()
        assert job.notes == ["prepare", "commit", "clean"]

    assert "complete:ready" in states


async def test_finalizing_by_hand(yard: Yard) -> None:
    job = Steps(yard, auto_finalize=False, auto_dismiss=False)
    yard.jobs.start("j", job)
    job.enough.set()
    await reach(job, JobStatus.PENDING)
    assert job.notes == []
    job.user_finalize()
    await job.ended.wait()

    assert job.notes == ["prepare", "commit", "clean"]


async def test_a_pending_job_can_be_cancelled(yard: Yard) -> None:
    job = Steps(yard, auto_finalize=False, auto_dismiss=False)
    yard.jobs.start("j", job)
    job.enough.set()
    await reach(job, JobStatus.PENDING)
    job.user_cancel()
    await job.ended.wait()

    assert job.notes == ["abort", "clean"]


async def test_verbs_are_refused_by_state_and_in_qemus_words(yard: Yard) -> None:
    job = Steps(yard, auto_dismiss=False)
    yard.jobs.start("j", job)
    await reach(job, JobStatus.RUNNING)
    with pytest.raises(InvalidOption, match="in state 'running' cannot .* verb 'dismiss'$"):
        yard.jobs.dismiss(job)
    with pytest.raises(InvalidOption, match="in state 'running' cannot .* verb 'complete'$"):
        await job.user_complete()
    job.enough.set()
    await job.ended.wait()
    for verb in JobVerb:
        if verb is not JobVerb.DISMISS:
            with pytest.raises(InvalidOption) as caught:
                job.check_verb(verb)
            assert str(caught.value) == (
                f"Job 'j' in state 'concluded' cannot accept command verb '{verb.value}'"
            )
    yard.jobs.dismiss(job)
    with pytest.raises(NotFound, match="^Job not found$"):
        yard.jobs.find("j")


async def test_ids_are_checked(yard: Yard) -> None:
    job = Steps(yard)
    yard.jobs.start("j", job)
    for name, text in {"j": "Job ID 'j' already in use", "#j": "Invalid job ID '#j'"}.items():
        with pytest.raises(InvalidOption) as caught:
            yard.jobs.start(name, Steps(yard))
        assert str(caught.value) == text
    job.user_cancel()


async def test_a_job_that_never_ends_does_not_keep_the_yard(registry: Any) -> None:
    with anyio.fail_after(10):
        async with Yard(registry=registry) as yard:
            job = Steps(yard)
            yard.jobs.start("j", job)
            await reach(job, JobStatus.RUNNING)
    assert job.notes == ["abort", "clean"]


async def test_suspending_is_refused_by_name(yard: Yard) -> None:
    job = Steps(yard)
    job.id = "j"
    with pytest.raises(Unsupported, match="Job 'j' of type 'mirror' does not support suspending"):
        await job.suspend()
