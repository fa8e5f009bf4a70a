# SPDX-License-Identifier: Apache-2.0
"""Keys from passphrases, on threads that may burn, with an end to it.

The numbers of rounds come from images.  What opens one is given a bounded amount of
processor time, and a task that is cancelled takes its thread's work along.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import attrs

from blockyard.errors import BlockyardError, from_errno
from blockyard_formats_luks.cipher import native_hash
from blockyard_formats_luks.native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.schema.crypto import QCryptoHashAlgo

    _T = TypeVar("_T")

__all__ = ["Budget", "Key", "aside", "derive", "rounds_for"]

_ROUNDS_MAX = (1 << 32) - 1
_NANOSECONDS = 1_000_000_000


@attrs.define
class Budget:
    """What a piece of work on a thread may burn, and whether it is still wanted."""

    #: Nanoseconds of processor time that are left; 0 for no bound.
    left: int = 0
    #: ``bool *``, true when nobody waits any more.
    stop: Any = attrs.field(factory=lambda: ffi.new("bool *", False))

    @classmethod
    def of_seconds(cls, seconds: int) -> Budget:
        """A bounded one."""
        return cls(left=seconds * _NANOSECONDS)


class Key(bytearray):
    """Bytes that are wiped when the ``with`` that made them ends."""

    def __enter__(self) -> Key:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Make them zeroes."""
        lib.by_luks_wipe(ffi.from_buffer(self), len(self))


async def aside(budget: Budget, work: Callable[[], _T]) -> _T:
    """The result of ``work`` on a thread; cancellation stops what it derives with ``budget``."""
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        budget.stop[0] = True
        raise


def derive(
    algorithm: QCryptoHashAlgo,
    password: bytes | bytearray,
    salt: bytes,
    rounds: int,
    length: int,
    budget: Budget,
) -> Key:
    """PBKDF2 with HMAC (RFC 8018, 5.2).  Burns.

    :raises BlockyardError: if the budget is used up, or the hash is not there.
    """
    out = Key(length)
    began = time.thread_time_ns()
    result = lib.by_luks_pbkdf2(
        native_hash(algorithm),
        ffi.from_buffer(password),
        len(password),
        salt,
        len(salt),
        rounds,
        ffi.from_buffer(out),
        length,
        budget.stop,
        budget.left,
    )
    if budget.left:
        budget.left = max(1, budget.left - (time.thread_time_ns() - began))
    if result == -errno.ENOTSUP:
        raise from_errno(errno.ENOSYS, f"PBKDF does not support hash algorithm {algorithm.value}")
    if result == -errno.ETIMEDOUT:
        raise BlockyardError(f"PBKDF iterations {rounds} take too long")
    if result < 0:
        raise from_errno(result, "Cannot derive password")
    return out


def rounds_for(
    algorithm: QCryptoHashAlgo, length: int, milliseconds: int, budget: Budget, share: int = 1
) -> int:
    """The rounds that take so long here for so many bytes, divided by ``share``.  Burns.

    :raises ImageIOError: ERANGE if a header has no room for the number.
    """
    rounds = _per_second(algorithm, length, budget) * milliseconds // 1000 // share
    if rounds > _ROUNDS_MAX:
        raise from_errno(errno.ERANGE, f"PBKDF iterations {rounds} larger than {_ROUNDS_MAX}")
    return rounds


_measured: dict[tuple[int, int], int] = {}


def _per_second(algorithm: QCryptoHashAlgo, length: int, budget: Budget) -> int:
    """Measured once in a process for each hash and number of its blocks."""
    number = native_hash(algorithm)
    blocks = -(-length // max(1, lib.by_luks_digest_bytes(number)))
    if (number, blocks) not in _measured:
        out = ffi.new("uint64_t *")
        result = lib.by_luks_rounds_per_second(number, length, budget.stop, out)
        if result == -errno.ENOTSUP:
            text = f"PBKDF does not support hash algorithm {algorithm.value}"
            raise from_errno(errno.ENOSYS, text)
        if result < 0:
            raise from_errno(result, "Cannot derive password")
        _measured[number, blocks] = int(out[0])
    return _measured[number, blocks]
