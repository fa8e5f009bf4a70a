# SPDX-License-Identifier: Apache-2.0
"""``help``: what commands there are, and what each does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard_tools.io.table import COMMANDS, find

if TYPE_CHECKING:
    from blockyard_tools.io.session import Session

__all__ = ["help_"]

_C = " -C, -- report in a form that programs read\n"
_F = " -f, -- on stable storage when it completes (FUA)\n"
_I = " -i, -- count the request as invalid, and send none\n"
_P_READ = " -P, -- compare what was read with this byte\n"
_P_WRITE = " -P, -- write this byte in place of 0xcd\n"
_Q = " -q, -- do not report\n"
_R = " -r, -- use memory that is registered for I/O\n"
_U = " -u, -- with -z, the range may be deallocated\n"
_V = " -v, -- show what was read\n"
_P_OLD = " -p, -- has no effect; older scripts use it\n"

_READ = f"""
 reads one range of the image

 Example:
 'read -v 512 1k' - reads 1 kilobyte that begins at byte 512, and shows it

 -b, -- read saved machine state, not the disk
{_C} -l, -- bytes that -P compares
{_P_OLD}{_P_READ}{_Q}{_R} -s, -- where -P begins to compare
{_V}"""

_READV = f"""
 reads one range of the image into several pieces of memory

 Example:
 'readv -v 512 1k 1k' - reads 2 kilobytes that begin at byte 512, in two pieces

{_C}{_P_READ}{_Q}{_R}{_V}"""

_WRITE = f"""
 writes one range of the image

 Example:
 'write 512 1k' - writes 1 kilobyte of 0xcd that begins at byte 512

 -b, -- write saved machine state, not the disk
 -c, -- compress what is written
{_C}{_F} -n, -- with -z, fail where that would be slow
{_P_OLD}{_P_WRITE}{_Q}{_R} -s, -- write what is in a file, over and over
{_U} -z, -- write zeroes, without a payload
"""

_WRITEV = f"""
 writes one range of the image from several pieces of memory

 Example:
 'writev 512 1k 1k' - writes 2 kilobytes that begin at byte 512, from two pieces

{_C}{_F}{_P_WRITE}{_Q}{_R}"""

_AIO = """ The command succeeds when the request is on its way. How it ended is told when it
 has ended; aio_flush waits for that.
"""

_AIO_READ = f"""
 begins to read one range of the image

 Example:
 'aio_read -v 512 1k 1k' - reads 2 kilobytes that begin at byte 512, and shows them

{_AIO}{_C}{_I}{_P_READ}{_Q}{_R}{_V}"""

_AIO_WRITE = f"""
 begins to write one range of the image

 Example:
 'aio_write 512 1k 1k' - writes 2 kilobytes that begin at byte 512

{_AIO}{_C}{_F}{_I}{_P_WRITE}{_Q}{_R}{_U} -z, -- write zeroes, without a payload
"""

_AIO_DISCARD = f"""
 begins to give one range of the image up

 Example:
 'aio_discard 512 1k' - gives up 1 kilobyte that begins at byte 512

{_AIO}{_C}{_Q}"""

_DISCARD = f"""
 gives one range of the image up

 Example:
 'discard 512 1k' - gives up 1 kilobyte that begins at byte 512

{_C}{_Q}"""

_OPEN = """
 opens the image that the other commands are about

 Example:
 'open -n -o driver=raw /tmp/data' - opens a raw image past the host's cache

 -r, -- do not write to it
 -s, -- write to a temporary overlay
 -C, -- keep what is read from its backing file
 -n, -- past the host's cache, short for -t none
 -U, -- while others write to it
 -k, -- native AIO, short for -i native
 -i, -- how it is read and written: threads, native or io_uring
 -t, -- cache mode
 -d, -- what becomes of discards: ignore or unmap
 -o, -- options of its drivers"""

_REOPEN = """
 changes how the image is open

 Example:
 'reopen -o lazy-refcounts=on' - lets a qcow2 image be lazy with refcounts

 -r, -- do not write to it any more
 -w, -- write to it
 -c, -- cache mode
 -o, -- options of its drivers, as 'open' takes them
"""

_SIGRAISE = """
 sends the process a signal

 Example:
 'sigraise 15' - ends it by SIGTERM
"""

_LONG = {
    "aio_discard": _AIO_DISCARD,
    "aio_read": _AIO_READ,
    "aio_write": _AIO_WRITE,
    "discard": _DISCARD,
    "open": _OPEN,
    "read": _READ,
    "readv": _READV,
    "reopen": _REOPEN,
    "sigraise": _SIGRAISE,
    "write": _WRITE,
    "writev": _WRITEV,
}


async def help_(session: Session, arguments: list[str]) -> bool:
    """Print a list of all commands, or all about one."""
    output = session.output
    if not arguments:
        for command in COMMANDS:
            output.line(command.usage)
        output.line("\nUse 'help commandname' for extended help.")
        return True
    found = find(arguments[0])
    if found is None:
        output.line(f"command {arguments[0]} not found")
        return False
    output.line(found.usage)
    if found.name in _LONG:
        output.line(_LONG[found.name])
    return True
