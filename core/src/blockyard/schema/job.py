# SPDX-License-Identifier: Apache-2.0
"""Jobs: what query-jobs tells, and the states."""

from __future__ import annotations

from blockyard.schema.declare import QEnum, enum, struct

__all__ = ["JobInfo", "JobStatus", "JobStatusChange", "JobType", "JobVerb"]


@enum
class JobType(QEnum):
    """What a job does."""

    COMMIT = "commit"
    STREAM = "stream"
    MIRROR = "mirror"
    BACKUP = "backup"
    CREATE = "create"
    AMEND = "amend"
    SNAPSHOT_LOAD = "snapshot-load"
    SNAPSHOT_SAVE = "snapshot-save"
    SNAPSHOT_DELETE = "snapshot-delete"


@enum
class JobStatus(QEnum):
    """The state of a job; docs/interop of the reference implementation draws the changes."""

    UNDEFINED = "undefined"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"
    WAITING = "waiting"
    PENDING = "pending"
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"


@enum
class JobVerb(QEnum):
    """What one can do to a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    SET_SPEED = "set-speed"
    COMPLETE = "complete"
    DISMISS = "dismiss"
    FINALIZE = "finalize"
    CHANGE = "change"


@struct
class JobInfo:
    """A job.

    id: its name.
    type: what it does.
    status: its state.
    current-progress: done so far, in units of the job's own.
    total-progress: to be done in all, as far as is known.
    error: why it failed; absent when it did not.
    """

    id: str
    type: JobType
    status: JobStatus
    current_progress: int
    total_progress: int
    error: str | None = None


@struct
class JobStatusChange:
    """The data of JOB_STATUS_CHANGE.

    id: the job.
    status: its new state.
    """

    id: str
    status: JobStatus
