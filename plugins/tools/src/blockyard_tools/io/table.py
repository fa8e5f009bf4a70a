# SPDX-License-Identifier: Apache-2.0
"""The commands: their names and arguments, and where each is carried out."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "Command", "find"]


class Command(NamedTuple):
    """One command.  Its function has the table's name, dashes apart, in ``module``."""

    name: str
    #: Another, short name; empty for none.
    alias: str
    #: How many words may follow; ``most`` is None where there is no limit.
    least: int
    most: int | None
    #: What follows the name, in the usage.
    arguments: str
    summary: str
    module: str
    function: str
    needs_image: bool = True
    #: What it changes: "" for nothing, "write", or "resize".
    changes: str = ""

    @property
    def usage(self) -> str:
        """The line that tells how it is used."""
        arguments = f"{self.arguments} " if self.arguments else ""
        # "map" has always been shown with two spaces.
        gap = " " if self.name == "map" else ""
        return f"{self.name} {gap}{arguments}-- {self.summary}"

    def count_error(self, typed: str, count: int) -> str | None:
        """What to say of so many words under the name that was typed; None if they suit."""
        if count >= self.least and (self.most is None or count <= self.most):
            return None
        if self.most is None:
            expected = f"at least {self.least}"
        elif self.least == self.most:
            expected = str(self.least)
        else:
            expected = f"between {self.least} and {self.most}"
        return f"bad argument count {count} to {typed}, expected {expected} arguments"


_READ = "[-abCqrv] [-P pattern [-s off] [-l len]] off len"
_WRITE = "[-bcCfnqruz] [-P pattern | -s source_file] off len"
_OPEN = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]"
_READS = "reads a number of bytes at a specified offset"
_WRITES = "writes a number of bytes at a specified offset"

_M = "blockyard_tools.io."
#: In the order of their names.
COMMANDS = (
    Command("abort", "", 0, 0, "", "simulate a program crash using abort(3)",
            _M + "process", "abort", needs_image=False),
    Command("aio_discard", "", 2, None, "[-Cq] off len",
            "asynchronously discards a number of bytes", _M + "background", "aio_discard",
            changes="write"),
    Command("aio_flush", "", 0, 0, "", "completes all outstanding aio requests",
            _M + "background", "aio_flush"),
    Command("aio_read", "", 2, None, "[-Ciqrv] [-P pattern] off len [len..]",
            "asynchronously reads a number of bytes", _M + "background", "aio_read"),
    Command("aio_write", "", 2, None, "[-Cfiqruz] [-P pattern] off len [len..]",
            "asynchronously writes a number of bytes", _M + "background", "aio_write",
            changes="write"),
    Command("alloc", "a", 1, 2, "offset [count]", "checks if offset is allocated in the file",
            _M + "image", "alloc"),
    Command("break", "", 2, 2, "event tag",
            "sets a breakpoint on event and tags the stopped request as tag",
            _M + "breakpoints", "break_"),
    Command("close", "c", 0, 0, "", "close the current open file", _M + "opening", "close"),
    Command("discard", "d", 2, None, "[-Cq] off len",
            "discards a number of bytes at a specified offset", _M + "transfer", "discard",
            changes="write"),
    Command("flush", "f", 0, 0, "", "flush all in-core file state to disk", _M + "image", "flush"),
    Command("help", "?", 0, 1, "[command]", "help for one or all commands", _M + "help", "help_",
            needs_image=False),
    Command("info", "i", 0, 0, "", "prints information about the current file",
            _M + "image", "info"),
    Command("length", "l", 0, 0, "", "gets the length of the current file", _M + "image", "length"),
    Command("map", "", 0, 0, "", "prints the allocated areas of a file", _M + "image", "map_"),
    Command("open", "o", 1, None, _OPEN, "open the file specified by path",
            _M + "opening", "open_", needs_image=False),
    Command("quit", "q", 0, None, "", "exit the program", _M + "process", "quit_",
            needs_image=False),
    Command("read", "r", 2, None, _READ, _READS, _M + "transfer", "read"),
    Command("readv", "", 2, None, "[-Cqrv] [-P pattern] off len [len..]", _READS,
            _M + "scattered", "readv"),
    Command("remove_break", "", 1, 1, "tag", "remove a breakpoint by tag",
            _M + "breakpoints", "remove_break"),
    Command("reopen", "", 0, None, "[(-r|-w)] [-c cache] [-o options]",
            "reopens an image with new options", _M + "reopening", "reopen"),
    Command("resume", "", 1, 1, "tag", "resumes the request tagged as tag",
            _M + "breakpoints", "resume"),
    Command("sigraise", "", 1, 1, "signal", "raises a signal", _M + "process", "sigraise",
            needs_image=False),
    Command("sleep", "", 1, 1, "", "waits for the given value in milliseconds",
            _M + "process", "sleep", needs_image=False),
    Command("truncate", "t", 1, 3, "[-m prealloc_mode] off",
            "truncates the current file at the given offset", _M + "image", "truncate",
            changes="resize"),
    Command("wait_break", "", 1, 1, "tag", "waits for the suspension of a request",
            _M + "breakpoints", "wait_break"),
    Command("write", "w", 2, None, _WRITE, _WRITES, _M + "transfer", "write", changes="write"),
    Command("writev", "", 2, None, "[-Cfqr] [-P pattern] off len [len..]", _WRITES,
            _M + "scattered", "writev", changes="write"),
    Command("zone_append", "zap", 3, 4, "offset len [len..]",
            "append write a number of bytes at a specified offset", _M + "zones", "append"),
    Command("zone_close", "zc", 2, 2, "offset len", "close a range of zones in zone block device",
            _M + "zones", "close"),
    Command("zone_finish", "zf", 2, 2, "offset len", "finish a range of zones in zone block device",
            _M + "zones", "finish"),
    Command("zone_open", "zo", 2, 2, "offset len",
            "explicit open a range of zones in zone block device", _M + "zones", "open_"),
    Command("zone_report", "zrp", 2, 2, "offset number", "report zone information",
            _M + "zones", "report"),
    Command("zone_reset", "zrs", 2, 2, "offset len",
            "reset a zone write pointer in zone block device", _M + "zones", "reset"),
)  # fmt: skip

_BY_NAME = {name: command for command in COMMANDS for name in (command.name, command.alias) if name}


def find(name: str) -> Command | None:
    """The command of that name; None if there is none."""
    return _BY_NAME.get(name)
