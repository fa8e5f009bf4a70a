# SPDX-License-Identifier: Apache-2.0
"""Requests that are sent for their own sake, to see how long they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from blockyard.errors import from_errno
from blockyard.runner import Runner

if TYPE_CHECKING:
    from blockyard.loop import Control
    from blockyard.root import Root

__all__ = ["Bench", "Bencher"]


@attrs.frozen(kw_only=True)
class Bench:
    """What is sent.  Bytes, where nothing else is said."""

    #: How many requests.
    count: int
    #: How many at a time.
    depth: int
    #: Of each request.
    bytes: int
    #: Where the first begins; behind the disk's end it goes on at its beginning.
    offset: int = 0
    #: From one request to the next.
    step: int = 0
    write: bool = False
    #: What is written.
    pattern: int = 0
    #: A flush is sent whenever so many divide the requests that are left; 0: none is.
    flush_interval: int = 0
    #: Whether a flush waits until the requests before it have ended.
    drain: bool = True


class Bencher(Runner):
    """One such series through a root."""

    def __init__(self, control: Control, root: Root, bench: Bench) -> None:
        super().__init__(control)
        self._root = root
        self._bench = bench

    async def run(self) -> float:
        """Send them all; the seconds that it took.

        :raises ImageIOError: the first error.
        """
        try:
            event = await self._run()
            if event.result < 0:
                raise from_errno(event.result)
            return event.a / 1e9
        finally:
            if self._native is not None:
                self._control.lib.by_bencher_free(self._native)
                self._native = None

    def _start(self, tag: int) -> Any:
        fields = attrs.asdict(self._bench)
        fields["no_drain"] = not fields.pop("drain")
        params = {**fields, "root": self._root.native, "tag": tag}
        return self._control.lib.by_bencher_start(
            self._control.ffi.new("struct by_bench_params *", params)
        )

    def _cancel(self) -> None:
        self._control.lib.by_bencher_cancel(self._native)
