# SPDX-License-Identifier: Apache-2.0
"""The console scripts.  Each imports its own program only: start-up is most of a short run."""

import os
import sys
from collections.abc import Callable, Sequence

from blockyard_tools.error import ProgramError

__all__ = ["img", "io", "nbd"]

#: The status of a program that a signal ended, as shells tell it.
_INTERRUPTED = 130
_PIPE_CLOSED = 141


def img() -> int:
    """``blockyard-img``, with qemu-img's command line."""
    from blockyard_tools.img.main import main

    return _run(main)


def io() -> int:
    """``blockyard-io``, with qemu-io's command line."""
    from blockyard_tools.io.main import main

    return _run(main)


def nbd() -> int:
    """``blockyard-nbd``, with qemu-nbd's command line."""
    from blockyard_tools.nbd.main import main

    return _run(main)


def _run(main: Callable[[Sequence[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except ProgramError as error:
        return error.report()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough; nothing more goes there, at the interpreter's end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
