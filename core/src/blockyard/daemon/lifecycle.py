# SPDX-License-Identifier: Apache-2.0
"""From an empty yard to one that serves, and back, with nothing lost."""

from __future__ import annotations

import contextlib
import gc
import signal
from typing import TYPE_CHECKING

import anyio
import attrs

from blockyard import activation
from blockyard.daemon.apply import Options
from blockyard.daemon.deadline import deadline
from blockyard.daemon.hooks import Hooks
from blockyard.daemon.tracing import EventsFileError
from blockyard.errors import BlockyardError
from blockyard.trace import point
from blockyard.yard import Yard

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from blockyard.daemon.getopt import Given
    from blockyard.daemon.process import Background, PidFile
    from blockyard.daemon.tracing import Tracing

__all__ = ["OptionError", "serve"]

_READY = point("daemon_ready")
_STOPPING = point("daemon_stopping")
#: Seconds that monitors' clients get to read what they were told.
_GRACE = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class OptionError(Exception):
    """Raised when an option cannot be applied; says which, and why."""

    def __init__(self, option: Given, error: BlockyardError) -> None:
        super().__init__(f"{option.text}: {error}")


async def serve(
    options: list[Given], tracing: Tracing, pid_file: PidFile | None, background: Background
) -> None:
    """Apply the options, serve until told to stop, then close everything.

    :raises OptionError: if one of them cannot be applied; everything is closed by then.
    :raises Finished: if one of them was a question.
    """
    # From here on a signal is a wish: it is kept until somebody looks.
    with anyio.open_signal_receiver(*_SIGNALS) as signals, contextlib.ExitStack() as ending:
        async with Yard(held=True) as yard:
            stop = yard.extra["quit"] = anyio.Event()
            yard.spawn(_bound_the_end, yard, stop, ending, pid_file)
            try:
                await _live(yard, signals, _Plan(options, tracing, pid_file, background))
            finally:
                stop.set()
                # Once more: the task above may have been cancelled with all others.
                ending.enter_context(deadline(yard.graph, pid_file))


@attrs.frozen(eq=False, repr=False)
class _Plan:
    options: list[Given]
    tracing: Tracing
    pid_file: PidFile | None
    background: Background


async def _live(yard: Yard, signals: AsyncIterable[object], plan: _Plan) -> None:
    stop = yard.extra["quit"]
    setting_up = anyio.CancelScope()
    yard.spawn(_wait_for_signal, signals, stop, setting_up)
    hooks = Hooks(yard)
    await hooks.started()
    with setting_up:
        await _set_up(yard, plan.options, plan.tracing)
        gc.freeze()
        gc.enable()
        if plan.pid_file is not None:
            plan.pid_file.create()
        yard.accepting.set()
        plan.background.ready()
        activation.notify("READY=1")
        _READY("options=%d", len(plan.options))
        await hooks.ready()
    await stop.wait()
    _STOPPING("told to stop")
    activation.notify("STOPPING=1")
    await hooks.stopping()
    await _finish_monitors(yard)


async def _bound_the_end(
    yard: Yard, stop: anyio.Event, ending: contextlib.ExitStack, pid_file: PidFile | None
) -> None:
    """From the wish to stop on, time runs: until the yard is closed."""
    await stop.wait()
    ending.enter_context(deadline(yard.graph, pid_file))


async def _set_up(yard: Yard, given: list[Given], tracing: Tracing) -> None:
    options = Options(yard, tracing)
    await _passed_sockets(yard, options, {option.name for option in given})
    for option in given:
        try:
            await options.apply(option)
        except EventsFileError:
            raise
        except BlockyardError as error:
            raise OptionError(option, error) from error


async def _passed_sockets(yard: Yard, options: Options, names: set[str]) -> None:
    """Use what LISTEN_FDS passed, where the command line does not say how."""
    monitors = [each for each in activation.passed() if each.name in ("qmp", "monitor")]
    servers = [each for each in activation.passed() if each not in monitors]
    if servers and "nbd-server" not in names and yard.registry.has("options", "nbd-server"):
        address = f"addr.type=fd,addr.str={servers[0].fd}"
        await options.run("options", "nbd-server", address, None)
    if monitors and "monitor" not in names:
        await options.passed_monitor(monitors[0].fd)


async def _finish_monitors(yard: Yard) -> None:
    monitors = yard.extra.get("monitors")
    if monitors is not None:
        await monitors.finish(_GRACE)


async def _wait_for_signal(
    signals: AsyncIterable[object], stop: anyio.Event, setting_up: anyio.CancelScope
) -> None:
    """A signal ends the daemon even while an option waits for something."""
    async for _ in signals:
        stop.set()
        setting_up.cancel()
