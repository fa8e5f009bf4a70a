# SPDX-License-Identifier: Apache-2.0
"""The console scripts.  Each imports its own program only: start-up is most of a short run."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from blockyard.standardstreams import hold_standard_streams
from blockyard_tools.error import ProgramError

__all__ = ["img", "io", "nbd"]

_FAILED = 1
#: The status of a program that a signal ended, as shells tell it.
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def img() -> NoReturn:
    """``blockyard-img``, with qemu-img's command line."""
    from blockyard_tools.img.main import main

    _run("qemu-img", main)


def io() -> NoReturn:
    """``blockyard-io``, with qemu-io's command line."""
    from blockyard_tools.io.main import main

    _run("qemu-io", main)


def nbd() -> NoReturn:
    """``blockyard-nbd``, with qemu-nbd's command line."""
    from blockyard_tools.nbd.main import main

    _run("qemu-nbd", main)


def _run(program: str, main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a program and end the process.

    Its yard is closed by then, and everything flushed.  Taking the interpreter down as well
    would be a tenth of a short run.
    """
    hold_standard_streams()
    status = _status_of(program, main)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        status = _unwritable(program, error)
    os._exit(status)


def _status_of(program: str, main: Callable[[Sequence[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except ProgramError as error:
        return error.report()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        return _unwritable(program, error)


def _unwritable(program: str, error: OSError) -> int:
    """What is printed cannot be written.  A reader that has seen enough is no failure to tell."""
    # Nothing more goes there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return _PIPE_CLOSED
    where = f"{error.filename}: " if error.filename else ""
    print(f"{program}: {where}{error.strerror or error}", file=sys.stderr, flush=True)
    return _FAILED
