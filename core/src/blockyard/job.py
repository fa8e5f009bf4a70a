# SPDX-License-Identifier: Apache-2.0
"""Jobs: long work in the background, its states and what may be done to it.

States and verbs are QEMU's (qapi/job.json; docs/devel, "job state transitions").
A job's body runs as a task of the yard; it stops for pauses and drained sections
at its pause points, and ends with a final step that changes the graph.
"""

from __future__ import annotations

import abc
import errno
import itertools
import logging
import os
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import attrs

from blockyard.errors import BlockyardError, InvalidOption, NotFound, Unsupported
from blockyard.identifier import identifier_ok
from blockyard.qmp.event import event
from blockyard.schema.job import JobInfo, JobStatus, JobStatusChange, JobType, JobVerb

if TYPE_CHECKING:
    from blockyard.yard import Yard

__all__ = ["Job", "JobKind", "Jobs", "StatusChange"]

_log = logging.getLogger(__name__)
_S, _V = JobStatus, JobVerb

_LIVE = frozenset({_S.CREATED, _S.RUNNING, _S.PAUSED, _S.READY, _S.STANDBY})

#: Which states accept which verb.
_VERBS: dict[JobVerb, frozenset[JobStatus]] = {
    _V.CANCEL: _LIVE | {_S.WAITING, _S.PENDING},
    _V.PAUSE: _LIVE,
    _V.RESUME: _LIVE,
    _V.SET_SPEED: _LIVE,
    _V.COMPLETE: frozenset({_S.READY, _S.STANDBY}),
    _V.FINALIZE: frozenset({_S.PENDING}),
    _V.DISMISS: frozenset({_S.CONCLUDED}),
    _V.CHANGE: _LIVE,
}

#: Which state may follow which.
_NEXT: dict[JobStatus, frozenset[JobStatus]] = {
    _S.UNDEFINED: frozenset({_S.CREATED}),
    _S.CREATED: frozenset({_S.RUNNING, _S.ABORTING, _S.NULL}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.READY, _S.WAITING, _S.ABORTING}),
    _S.PAUSED: frozenset({_S.RUNNING}),
    _S.READY: frozenset({_S.STANDBY, _S.WAITING, _S.ABORTING}),
    _S.STANDBY: frozenset({_S.READY}),
    _S.WAITING: frozenset({_S.PENDING, _S.ABORTING}),
    _S.PENDING: frozenset({_S.ABORTING, _S.CONCLUDED}),
    _S.ABORTING: frozenset({_S.ABORTING, _S.CONCLUDED}),
    _S.CONCLUDED: frozenset({_S.NULL}),
    _S.NULL: frozenset(),
}

#: The event JOB_STATUS_CHANGE.
StatusChange = event("JOB_STATUS_CHANGE")(JobStatusChange)


@attrs.frozen(kw_only=True)
class JobKind:
    """The declaration of a plugin's job type, found by entry point."""

    #: The name in QMP's JobType, ``"mirror"``.
    name: str
    implementation: str | type[Job]


class Job(abc.ABC):
    """One job.  Subclasses implement :meth:`run`; the registry does the rest."""

    type: JobType

    def __init__(self, yard: Yard, *, auto_finalize: bool = True, auto_dismiss: bool = True):
        self.yard = yard
        #: Set by :meth:`Jobs.start`.
        self.id = ""
        self.status = _S.UNDEFINED
        #: In units of the job's own.
        self.progress = 0
        self.total = 0
        #: Why it failed; None while it has not.
        self.error: str | None = None
        self.auto_finalize = auto_finalize
        self.auto_dismiss = auto_dismiss
        self.cancelled = False
        self.ended = anyio.Event()
        self._pauses = 0
        self._user_paused = False
        self._go = anyio.Event()
        self._at_rest = anyio.Event()
        self._finalize = anyio.Event()
        self._scope = anyio.CancelScope()

    # -- what a job type implements

    @abc.abstractmethod
    async def run(self) -> None:
        """The work.  It awaits :meth:`pause_point` wherever it holds nothing up.

        :raises BlockyardError: if it fails; the text becomes the job's error.
        """

    async def begin(self) -> None:
        """What the command that starts it waits for, and what may refuse it."""

    async def prepare(self) -> None:
        """The part of the final step that may fail; under the graph's writer lock."""

    async def commit(self) -> None:
        """The part that may not; under the graph's writer lock."""

    async def abort(self) -> None:
        """Undo what the body and :meth:`prepare` did; cannot fail."""

    async def clean(self) -> None:
        """Release what the job holds, however it ended; cannot fail."""

    async def complete(self) -> None:
        """job-complete: let a job that is ready come to its end.

        :raises Unsupported: by jobs that end by themselves.
        """
        raise Unsupported(f"The active block job '{self.id}' cannot be completed")

    def cancel_softly(self) -> bool:
        """Whether a cancelled job that is ready ends by itself, successfully."""
        return False

    async def suspend(self) -> dict[str, Any]:
        """The job as plain data with a version.

        :raises Unsupported: naming the type; the default.
        """
        raise Unsupported(f"Job '{self.id}' of type '{self.type}' does not support suspending")

    # -- what its body calls

    async def pause_point(self) -> None:
        """Stay here while the job is paused, by its user or by a drained section."""
        await anyio.lowlevel.checkpoint()
        while self._pauses:
            standing = self.status
            self.change(_S.STANDBY if standing is _S.READY else _S.PAUSED)
            self._at_rest.set()
            await self._go.wait()
            self.change(standing)

    def become_ready(self) -> None:
        """The job's source and target are in step; job-complete may follow."""
        self.change(_S.READY)

    def change(self, status: JobStatus) -> None:
        """Go to another state and tell everybody."""
        if status not in _NEXT[self.status]:
            raise AssertionError(f"job '{self.id}': {self.status} to {status}")
        self.status = status
        self.yard.events.emit(StatusChange(id=self.id, status=status))

    # -- pausing; a root's owner is asked this way

    async def drained_begin(self) -> None:
        """Pause, and wait until the body is at a pause point or at its end."""
        self._pause()
        if self.status in (_S.RUNNING, _S.READY):
            await self._at_rest.wait()

    async def drained_end(self) -> None:
        """The counterpart of :meth:`drained_begin`."""
        self._resume()

    async def home_changed(self, home: Any) -> None:
        """The job's requests go to the new loop by themselves."""

    def _pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1:
            self._go = anyio.Event()
            self._at_rest = anyio.Event()

    def _resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0:
            self._go.set()

    # -- verbs

    def check_verb(self, verb: JobVerb) -> None:
        """Refuse a verb that the present state does not accept.

        :raises InvalidOption: naming job, state and verb.
        """
        if self.status not in _VERBS[verb]:
            raise InvalidOption(
                f"Job '{self.id}' in state '{self.status}' cannot accept command verb '{verb}'"
            )

    def user_pause(self) -> None:
        """job-pause."""
        self.check_verb(_V.PAUSE)
        if self._user_paused:
            raise InvalidOption("Job is already paused")
        self._user_paused = True
        self._pause()

    def user_resume(self) -> None:
        """job-resume."""
        if not self._user_paused:
            raise InvalidOption("Can't resume a job that was not paused")
        self.check_verb(_V.RESUME)
        self._user_paused = False
        self._resume()

    def user_cancel(self, *, force: bool = False) -> None:
        """job-cancel: at once, or softly where the job can end by itself."""
        self.check_verb(_V.CANCEL)
        if not force and self.status in (_S.READY, _S.STANDBY) and self.cancel_softly():
            return
        self.cancelled = True
        if self._user_paused:
            self._user_paused = False
            self._resume()
        self._finalize.set()
        self._scope.cancel()

    async def user_complete(self) -> None:
        """job-complete."""
        self.check_verb(_V.COMPLETE)
        if self.cancelled:
            raise Unsupported(f"The active block job '{self.id}' cannot be completed")
        await self.complete()

    def user_finalize(self) -> None:
        """job-finalize."""
        self.check_verb(_V.FINALIZE)
        self._finalize.set()

    def info(self) -> JobInfo:
        """The job as query-jobs shows it."""
        return JobInfo(
            id=self.id,
            type=self.type,
            status=self.status,
            current_progress=self.progress,
            total_progress=self.total,
            error=self.error,
        )

    # -- the life

    async def live(self) -> None:
        """From running to concluded; the task of :class:`Jobs`."""
        try:
            with self._scope:
                self.change(_S.RUNNING)
                await self.pause_point()
                await self.run()
            await self._end()
        except BaseException as error:
            await self._fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._at_rest.set()
            with anyio.CancelScope(shield=True):
                await self.clean()
            self.change(_S.CONCLUDED)
            self.ended.set()

    async def _end(self) -> None:
        self._at_rest.set()
        self._refuse_cancelled()
        self.change(_S.WAITING)
        self.change(_S.PENDING)
        if not self.auto_finalize:
            await self._finalize.wait()
            self._refuse_cancelled()
        async with self.yard.graph.writer:
            with anyio.CancelScope(shield=True):
                await self.prepare()
                await self.commit()

    def _refuse_cancelled(self) -> None:
        if self.cancelled:
            raise BlockyardError(os.strerror(errno.ECANCELED))

    async def _fail(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, BlockyardError | OSError):
            _log.error("job '%s' failed", self.id, exc_info=error)
        self.error = str(error) or type(error).__name__
        while self.status in (_S.PAUSED, _S.STANDBY):
            self.change(_S.RUNNING if self.status is _S.PAUSED else _S.READY)
        self.change(_S.ABORTING)
        with anyio.CancelScope(shield=True):
            await self.abort()


class Jobs:
    """The jobs of a yard, the newest first."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Any:
        return iter(list(self._jobs.values())[::-1])

    def find(self, job_id: str) -> Job:
        """The job of that id.

        :raises NotFound: if there is none.
        """
        if job_id not in self._jobs:
            raise NotFound("Job not found")
        return self._jobs[job_id]

    def check_id(self, job_id: str) -> None:
        """Refuse an id that is malformed or taken.

        :raises InvalidOption: saying which.
        """
        if not identifier_ok(job_id):
            raise InvalidOption(f"Invalid job ID '{job_id}'")
        if job_id in self._jobs:
            raise InvalidOption(f"Job ID '{job_id}' already in use")

    def start(self, job_id: str, job: Job) -> Job:
        """Give the job its id and let it run.

        :raises InvalidOption: if the id is malformed or taken.
        """
        self._create(job_id, job)
        self._yard.spawn(self._live, job)
        return job

    async def begin(self, job_id: str, job: Job) -> None:
        """:meth:`start`, after :meth:`Job.begin`; a job that is refused is forgotten at once."""
        self._create(job_id, job)
        try:
            await job.begin()
        except BaseException:
            self._forget(job)
            raise
        self._yard.spawn(self._live, job)

    def _create(self, job_id: str, job: Job) -> None:
        self.check_id(job_id)
        job.id = job_id
        self._jobs[job_id] = job
        job.change(_S.CREATED)

    def dismiss(self, job: Job) -> None:
        """job-dismiss: forget a job that has concluded.

        :raises InvalidOption: if it has not.
        """
        job.check_verb(_V.DISMISS)
        self._forget(job)

    async def close(self) -> None:
        """Cancel all jobs and wait for their end."""
        for job in self:
            if job.status in _VERBS[_V.CANCEL]:
                job.user_cancel(force=True)
            await job.ended.wait()
            if job.id in self._jobs:
                self._forget(job)

    async def _live(self, job: Job) -> None:
        await job.live()
        if job.auto_dismiss and job.id in self._jobs:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        job.change(_S.NULL)
